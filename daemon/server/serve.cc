#include <fmt/format.h>

#include <algorithm>
#include <random>

#include "base/version.h"
#include "daemon/server/answers/events.h"
#include "daemon/server/answers/receipt.h"
#include "daemon/server/answers/reports.h"
#include "daemon/server/calls.h"
#include "daemon/server/generate.h"
#include "daemon/server/limits.h"
#include "text/unicode_data.h"

namespace chimera {
namespace {

uint64_t random_seed() {
  // 53 bits, so that every JSON reader gives the same number back.
  thread_local std::random_device device;
  return ((uint64_t{device()} << 32) | device()) >> 11;
}

/// Ids below `count`. The model's vocabulary may be padded past the tokenizer's; ids up there are
/// fine and have no text.
Status check_ids(const std::vector<int32_t>& ids, int64_t count) {
  for (size_t i = 0; i < ids.size(); ++i) {
    if (ids[i] >= 0 && ids[i] < count) continue;
    return Status(
        Code::kInvalidArgument,
        fmt::format("tokens[{}] is {} (expected 0 to {}, the vocabulary)", i, ids[i], count - 1),
        "decode ids that this checkpoint's tokenizer or model produced");
  }
  return {};
}

/// Prompt tokens: text with what the tokenizer's post-processor adds, ids as they are.
Result<std::vector<int32_t>> prompt_tokens(const CallContext& context, wire::Input input) {
  if (auto* tokens = std::get_if<std::vector<int32_t>>(&input)) return std::move(*tokens);
  const Tokenizer* tokenizer = context.options.model.tokenizer.get();
  if (tokenizer == nullptr) return no_tokenizer();
  auto tokens = tokenizer->encode(std::get<std::string>(input),
                                  {.add_special_tokens = true, .match_special = false});
  // An empty prompt asks for a text from its beginning.
  if (tokens.ok() && tokens->empty() && context.score_prefix) {
    tokens->push_back(*context.score_prefix);
  }
  return tokens;
}

void start_generate(CallContext& context, const std::shared_ptr<Live>& live, EngineRequest request,
                    wire::Input prompt, const std::optional<wire::Constraint>& constraint) {
  if (Status status = constrain(context, constraint, request); !status.ok()) {
    return live->on_error(std::move(status));
  }
  auto tokens = prompt_tokens(context, std::move(prompt));
  if (!tokens.ok()) return live->on_error(tokens.status());
  request.tokens = std::move(tokens).value();
  submit(context, live, std::move(request));
}

/// Most tokens of one sequence: the deployment's limit, within the model's.
int64_t context_tokens(const ServerOptions& options) {
  const int64_t limit = options.config->serve.max_context;
  const int64_t positions = options.model_config().max_position_embeddings;
  return positions > 0 ? std::min(limit, positions) : limit;
}

}  // namespace

void run_by_size(CallContext& context, const std::shared_ptr<Live>& live, size_t bytes,
                 std::function<void()> task) {
  if (bytes <= kInlineText) return task();
  context.texts.post(live, std::move(task));
}

size_t text_size(const wire::Input& input) {
  const auto* text = std::get_if<std::string>(&input);
  return text == nullptr ? 0 : text->size();
}

ModuleSelection selection_of(wire::ModuleFilter filter) {
  ModuleSelection out{std::move(filter.only), std::move(filter.exclude), {}};
  for (const auto& [name, bias] : filter.bias) out.bias[name] = static_cast<float>(bias);
  out.adapters = std::move(filter.adapters);
  return out;
}

std::optional<std::chrono::steady_clock::time_point> deadline_at(
    std::chrono::steady_clock::time_point arrived, std::optional<int64_t> deadline_ms) {
  if (!deadline_ms) return std::nullopt;
  return arrived + std::chrono::milliseconds(*deadline_ms);
}

Status no_tokenizer() {
  return Status(Code::kUnimplemented, "text: the checkpoint has no tokenizer.json",
                "send \"tokens\" instead");
}

Status draining() {
  return Status(Code::kUnavailable, "daemon: draining, takes no new requests",
                "send the request to another daemon or try later");
}

Status constrain(CallContext& context, const std::optional<wire::Constraint>& asked,
                 EngineRequest& request) {
  if (!asked) return {};
  if (context.options.model.tokenizer == nullptr) {
    return Status(Code::kUnimplemented, "constraint: the checkpoint has no tokenizer.json",
                  "leave it out");
  }
  constraint::Spec spec{.text = asked->text};
  switch (asked->kind) {
    case wire::Constraint::Kind::kJsonObject:
      spec.kind = constraint::Spec::Kind::kJsonObject;
      break;
    case wire::Constraint::Kind::kJsonSchema:
      spec.kind = constraint::Spec::Kind::kJsonSchema;
      break;
    case wire::Constraint::Kind::kRegex:
      spec.kind = constraint::Spec::Kind::kRegex;
      break;
    case wire::Constraint::Kind::kParts:
      spec.kind = constraint::Spec::Kind::kParts;
      break;
  }
  Result<constraint::ConstraintPtr> made = context.constraints.get(spec);
  if (!made.ok()) return made.status();
  request.constraint = std::move(*made);
  return {};
}

void submit(CallContext& context, const std::shared_ptr<Live>& live, EngineRequest request) {
  Engine* engine = context.options.engine;
  // As the engine will clip it: a limit of tokens must not count what can never come.
  const int64_t room =
      context_tokens(context.options) - static_cast<int64_t>(request.tokens.size());
  if (room > 0) request.max_tokens = std::min(request.max_tokens, room);
  if (Status status = apply_limits(context.options.meters, *live, &request); !status.ok()) {
    return live->on_error(std::move(status));
  }
  if (Status status = begin_receipt(context.options.signer, *live); !status.ok()) {
    return live->on_error(std::move(status));
  }
  request.modules.rights = live->rights();
  const PrincipalPtr client = live->peer().principal;
  request.lot = canary_lot(client == nullptr ? "" : client->name, live->id());
  const auto id = engine->submit(std::move(request), live);
  if (!id.ok()) return live->on_error(id.status());
  live->set_entitler([engine, request_id = id.value()](ModuleRightsPtr rights) {
    engine->entitle(request_id, std::move(rights));
  });
  live->set_canceller([engine, request_id = id.value()] { engine->cancel(request_id); });
}

EngineRequest generate_request(const CallContext& context, Live& live, wire::Generate& call) {
  EngineRequest request;
  request.kind = EngineRequest::Kind::kGenerate;
  request.arrived = std::chrono::steady_clock::now();
  request.deadline = deadline_at(request.arrived, call.deadline_ms);
  request.max_tokens = call.max_tokens;
  request.sampling = {.temperature = call.temperature,
                      .top_p = call.top_p,
                      .top_k = call.top_k,
                      .min_p = call.min_p,
                      .repetition_penalty = call.repetition_penalty,
                      .seed = call.seed ? *call.seed : random_seed(),
                      .frequency_penalty = call.frequency_penalty,
                      .presence_penalty = call.presence_penalty,
                      .logit_bias = {call.logit_bias.begin(), call.logit_bias.end()}};
  request.stop = std::move(call.stop);
  request.ignore_eos = call.ignore_eos;
  request.skip_special = call.skip_special;
  request.want_logprobs = call.logprobs || call.top_logprobs > 0;
  request.top_logprobs = call.top_logprobs;
  request.want_shares = call.shares;
  request.modules = selection_of(std::move(call.modules));
  // A REQ socket can take one answer only.
  live.stream = call.stream && !live.peer().delimiter;
  live.seed = request.sampling.seed;
  live.tokenizer = context.options.model.tokenizer;
  return request;
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Generate call) {
  if (context.draining) return live->on_error(draining());
  EngineRequest request = generate_request(context, *live, call);
  // A constraint is compiled, which may take longer than any text; for a receipt the request is
  // read once more.
  const bool long_work = call.constraint || call.receipt;
  const size_t bytes = long_work ? kInlineText + 1 : text_size(call.prompt);
  run_by_size(context, live, bytes,
              [&context, live, request = std::move(request), prompt = std::move(call.prompt),
               constraint = std::move(call.constraint)]() mutable {
                start_generate(context, live, std::move(request), std::move(prompt), constraint);
              });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Tokenize call) {
  if (call.conversation) return tokenize_chat(context, live, std::move(*call.conversation));
  const auto tokenizer = context.options.model.tokenizer;
  if (!tokenizer) return live->on_error(no_tokenizer());
  const size_t bytes = call.text.size();
  run_by_size(context, live, bytes, [live, tokenizer, call = std::move(call)] {
    const auto tokens = tokenizer->encode(
        call.text, {.add_special_tokens = call.add_special, .match_special = call.match_special});
    if (!tokens.ok()) return live->on_error(tokens.status());
    live->answer(encode_reply(live->id(), {{"tokens", tokens.value()}}));
  });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Detokenize call) {
  const auto tokenizer = context.options.model.tokenizer;
  if (!tokenizer) return live->on_error(no_tokenizer());
  const int64_t ids = std::max(context.options.model_config().vocab_size, tokenizer->vocab_size());
  if (const Status status = check_ids(call.tokens, ids); !status.ok()) {
    return live->on_error(status);
  }
  const size_t bytes = call.tokens.size() * sizeof(int32_t);
  run_by_size(context, live, bytes, [live, tokenizer, call = std::move(call)] {
    const auto text = tokenizer->decode(call.tokens, call.skip_special);
    if (!text.ok()) return live->on_error(text.status());
    live->answer(encode_reply(live->id(), {{"text", text.value()}}));
  });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Info) {
  context.queries.post(live, [&context, live] {
    const ServerOptions& options = context.options;
    Json modules = Json::array();
    const ModuleRightsPtr rights = live->rights();
    for (const ModuleStatus& module : options.registry->modules()) {
      if (!admits(rights, module.name)) continue;
      Json known = {
          {"name", module.name}, {"version", module.version}, {"enabled", module.enabled}};
      // Who chooses among modules has to know those that are used only where they are named.
      if (module.kind == ModuleKind::kLora) known["kind"] = kModuleKindNames.name(module.kind);
      modules.push_back(std::move(known));
    }
    const PublishedEpoch current = options.engine->current(rights);
    Json out = {{"protocol", "chimera/1"},
                {"version", version()},
                {"model_type", options.model_config().model_type},
                {"family", options.model_config().model_type},
                {"vocab", options.model_config().vocab_size},
                {"hidden_size", options.model_config().hidden_size},
                {"layers", options.model_config().num_layers},
                {"context", context_tokens(options)},
                {"max_sequences", options.config->serve.max_sequences},
                {"precision", options.config->backbone.precision.name()},
                {"kv_format", kKvFormatNames.name(options.config->memory.kv_format)},
                {"has_tokenizer", options.model.tokenizer != nullptr},
                {"has_chat_template", options.model.chat_template != nullptr},
                {"unicode", tokenizer::kUnicodeVersion},
                {"fingerprint", options.model.fingerprint},
                {"epoch", current.epoch},
                {"composition", current.composition},
                {"top_k", current.top_k},
                {"notes", current.notes},
                {"changed_files", changed_files_json()},
                {"modules", std::move(modules)}};
    out["score_prefix_token"] = context.score_prefix ? Json(*context.score_prefix) : Json();
    // What all modules take would tell of those that are hidden from a client.
    if (options.memory != nullptr && rights == nullptr) {
      out["memory"] = to_json(options.memory->account());
    }
    live->answer(encode_reply(live->id(), out));
  });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Health) {
  live->answer(encode_reply(live->id(), {{"status", context.draining ? "draining" : "ok"},
                                         {"epoch", context.options.engine->current().epoch}}));
}

}  // namespace chimera
