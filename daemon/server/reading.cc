// The calls that read a text and continue none: `score` and `embed`.
#include "daemon/engine/score_text.h"
#include "daemon/server/calls.h"
#include "daemon/server/generate.h"

namespace chimera {
namespace {

/// Tokens and scored bytes of a score.
Status score_input(const CallContext& context, wire::Input input, EngineRequest& request) {
  if (auto* tokens = std::get_if<std::vector<int32_t>>(&input)) {
    request.tokens = std::move(*tokens);
    return {};
  }
  const Tokenizer* tokenizer = context.options.model.tokenizer.get();
  if (tokenizer == nullptr) return no_tokenizer();
  auto scored =
      score_text(*tokenizer, context.score_prefix, std::get<std::string>(input), "score.text");
  if (!scored.ok()) return scored.status();
  request.text_bytes = scored->bytes;
  request.tokens = std::move(scored->tokens);
  return {};
}

void start_score(CallContext& context, const std::shared_ptr<Live>& live, EngineRequest request,
                 wire::Input input) {
  Status status = score_input(context, std::move(input), request);
  if (!status.ok()) return live->on_error(std::move(status));
  submit(context, live, std::move(request));
}

/// Tokens of a text as those of a prompt, with what the tokenizer puts around it.
Result<std::vector<int32_t>> embedded_tokens(const CallContext& context, wire::Input input) {
  if (auto* tokens = std::get_if<std::vector<int32_t>>(&input)) return std::move(*tokens);
  const Tokenizer* tokenizer = context.options.model.tokenizer.get();
  if (tokenizer == nullptr) return no_tokenizer();
  const std::string& text = std::get<std::string>(input);
  if (text.empty()) {
    return Status(Code::kInvalidArgument, "embed.text: empty (expected at least one character)",
                  "send some text");
  }
  return tokenizer->encode(text, {.add_special_tokens = true, .match_special = false});
}

void start_embed(CallContext& context, const std::shared_ptr<Live>& live, EngineRequest request,
                 wire::Input input) {
  auto tokens = embedded_tokens(context, std::move(input));
  if (!tokens.ok()) return live->on_error(tokens.status());
  request.tokens = std::move(*tokens);
  submit(context, live, std::move(request));
}

/// What both have in common; `call` keeps the rest.
template <class Call>
EngineRequest request_of(Live& live, EngineRequest::Kind kind, Call& call) {
  EngineRequest request;
  request.kind = live.kind = kind;
  request.arrived = std::chrono::steady_clock::now();
  request.deadline = deadline_at(request.arrived, call.deadline_ms);
  request.modules = selection_of(std::move(call.modules));
  return request;
}

}  // namespace

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Score call) {
  if (context.draining) return live->on_error(draining());
  EngineRequest request = request_of(*live, EngineRequest::Kind::kScore, call);
  request.want_logprobs = true;
  request.want_logits = call.logits;
  request.want_routing = call.routing;
  live->vocab = context.options.model_config().vocab_size;
  const size_t bytes = call.receipt ? kInlineText + 1 : text_size(call.input);
  run_by_size(
      context, live, bytes,
      [&context, live, request = std::move(request), input = std::move(call.input)]() mutable {
        start_score(context, live, std::move(request), std::move(input));
      });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Embed call) {
  if (context.draining) return live->on_error(draining());
  EngineRequest request = request_of(*live, EngineRequest::Kind::kEmbed, call);
  request.pooling = call.last ? Pooling::kLast : Pooling::kMean;
  request.normalize = call.normalize;
  run_by_size(
      context, live, text_size(call.input),
      [&context, live, request = std::move(request), input = std::move(call.input)]() mutable {
        start_embed(context, live, std::move(request), std::move(input));
      });
}

}  // namespace chimera
