// The call `chat`: a conversation through the checkpoint's template to tokens, then as `generate`.
#include <ctime>

#include "daemon/server/answers/events.h"
#include "daemon/server/calls.h"
#include "daemon/server/generate.h"

namespace chimera {
namespace {

Status no_template(const ServerOptions& options) {
  if (!options.model.chat_template_problem.ok()) {
    return Status(Code::kFailedPrecondition,
                  "chat: the checkpoint's chat template cannot be used: " +
                      options.model.chat_template_problem.message(),
                  options.model.chat_template_problem.hint());
  }
  return Status(
      Code::kUnimplemented, "chat: the checkpoint has no chat template",
      "put chat_template.jinja beside its tokenizer.json and restart, or use generate and "
      "write the turns into the prompt");
}

std::tm local_time() {
  const std::time_t now = std::time(nullptr);
  std::tm out{};
  localtime_r(&now, &out);
  return out;
}

Result<jinja::Rendered> render(const ServerOptions& options, const wire::Conversation& call) {
  if (options.model.chat_template == nullptr) return no_template(options);
  if (options.model.tokenizer == nullptr) return no_tokenizer();
  ChatTemplate::Request request;
  request.messages = call.messages_json;
  request.tools = call.tools_json;
  request.documents = call.documents_json;
  request.variables = call.chat_template_kwargs_json;
  request.add_generation_prompt = call.add_generation_prompt;
  request.now = local_time();
  return options.model.chat_template->render(request);
}

/// The template writes all control tokens itself, so the tokenizer adds none; in text that a client
/// supplied they stay text.
Result<std::vector<int32_t>> encode(const ServerOptions& options, const jinja::Rendered& text) {
  return options.model.tokenizer->encode(
      text.text, {.add_special_tokens = false, .match_special = true, .plain = text.client_text});
}

void start_chat(CallContext& context, const std::shared_ptr<Live>& live, EngineRequest request,
                const wire::Conversation& call, const std::optional<wire::Constraint>& constraint) {
  if (Status status = constrain(context, constraint, request); !status.ok()) {
    return live->on_error(std::move(status));
  }
  const auto text = render(context.options, call);
  if (!text.ok()) return live->on_error(text.status());
  auto tokens = encode(context.options, *text);
  if (!tokens.ok()) return live->on_error(tokens.status());
  if (tokens->empty()) {
    return live->on_error(Status(Code::kInvalidArgument,
                                 "chat: the chat template gave an empty text (expected a prompt)",
                                 "check the messages, and the template"));
  }
  request.tokens = std::move(tokens).value();
  submit(context, live, std::move(request));
}

}  // namespace

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Chat call) {
  if (context.draining) return live->on_error(draining());
  EngineRequest request = generate_request(context, *live, call.options);
  // A template may compute for up to a second, too long for the IO thread.
  context.texts.post(live, [&context, live, request = std::move(request),
                            conversation = std::move(call.conversation),
                            constraint = std::move(call.options.constraint)]() mutable {
    start_chat(context, live, std::move(request), conversation, constraint);
  });
}

void tokenize_chat(CallContext& context, std::shared_ptr<Live> live, wire::Conversation call) {
  context.texts.post(live, [&context, live, call = std::move(call)] {
    const auto text = render(context.options, call);
    if (!text.ok()) return live->on_error(text.status());
    const auto tokens = encode(context.options, *text);
    if (!tokens.ok()) return live->on_error(tokens.status());
    live->answer(encode_reply(live->id(), {{"tokens", *tokens}, {"text", text->text}}));
  });
}

}  // namespace chimera
