#include "clients/gateway/openai/completion.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "base/json/reader.h"
#include "base/json/writer.h"
#include "clients/gateway/openai/conversation.h"
#include "clients/gateway/openai/members.h"
#include "clients/gateway/openai/unsupported.h"
#include "clients/wire/ranges.h"

namespace chimera::gateway::openai {
namespace {

constexpr int64_t kMaxChoices = 128;        // as the API says
constexpr int64_t kDefaultTextTokens = 16;  // likewise, of /v1/completions
constexpr JsonLimits kBodyLimits{.max_depth = 32, .max_values = 1'052'672};  // as on the wire
constexpr uint64_t kSeeds = uint64_t{1} << 63;

/// Fields that the wire has under the same name, and ranges of its own.
constexpr std::array<std::string_view, 7> kSame = {
    "temperature", "top_p", "top_k", "min_p", "repetition_penalty", "seed", "ignore_eos"};

/// Builds the calls of one request.
class Reader {
 public:
  Reader(Api api, const Json& body, const ModelNames& names)
      : api_(api), members_(body), names_(names) {}

  std::variant<Completion, ApiError> read(const Request& request) {
    composition(request);
    if (!members_.ok()) return *members_.finish();
    sampling();
    stream();
    chimera_member();
    refuse_unsupported(members_, api_);
    choices();
    api_ == Api::kChat ? chat_input() : text_input();
    if (auto problem = members_.finish()) return *problem;
    for (wire::Call& call : out_.calls) {
      wire::Generate& options = options_of(call);
      narrow(options.modules, alias_.modules);
      narrow(options.modules, of_headers_);
    }
    return std::move(out_);
  }

 private:
  void composition(const Request& request) {
    const auto model = members_.text("model");
    if (members_.ok() && !model) {
      return members_.fail(bad_field("model", "missing (expected the name of a composition)",
                                     "GET /v1/models lists them"));
    }
    if (!model) return;
    out_.api = api_;
    out_.model = *model;
    auto found = find_composition(names_, *model);
    if (auto* error = std::get_if<ApiError>(&found)) return members_.fail(std::move(*error));
    alias_ = std::move(std::get<Alias>(found));
    auto modules = modules_of_headers(request);
    if (auto* error = std::get_if<ApiError>(&modules)) return members_.fail(std::move(*error));
    of_headers_ = std::get<wire::ModuleFilter>(std::move(modules));
    wire_ = alias_.defaults;
  }

  void sampling() {
    for (const std::string_view name : kSame) {
      if (const Json* value = members_.take(name)) wire_[name] = *value;
    }
    if (const Json* stop = members_.take("stop")) {
      wire_["stop"] = stop->is_string() ? Json::array({*stop}) : *stop;
    }
    max_tokens();
    logprobs();
  }

  void max_tokens() {
    const Json* most = members_.take("max_tokens");
    if (api_ == Api::kChat) {
      if (const Json* newer = members_.take("max_completion_tokens")) {
        most = newer;
        max_tokens_name_ = "max_completion_tokens";
      }
    }
    if (most != nullptr) {
      wire_["max_tokens"] = *most;
    } else if (!wire_.contains("max_tokens")) {
      // A conversation's answer ends by itself, at the latest with the context.
      wire_["max_tokens"] = api_ == Api::kChat ? wire::range::max_tokens.max : kDefaultTextTokens;
    }
  }

  void logprobs() {
    if (api_ == Api::kChat) {
      members_.take("logprobs", out_.logprobs);
    } else if (const Json* alternatives = members_.take("logprobs")) {
      if (alternatives->is_integer() && alternatives->integer() != 0) {
        members_.fail(unsupported("logprobs", "0 gives those of the chosen tokens alone"));
      } else if (!alternatives->is_integer()) {
        members_.bad("logprobs", *alternatives, "0");
      }
      out_.logprobs = true;
    }
  }

  void stream() {
    members_.take("stream", out_.stream);
    const Json* options = members_.take("stream_options");
    // Events bring each token's text, which the whole answer does not.
    wire_["stream"] = out_.stream || out_.logprobs;
    if (out_.logprobs) wire_["logprobs"] = true;
    if (options == nullptr) return;
    if (!out_.stream) {
      return members_.fail(bad_field("stream_options", "given without stream: true"));
    }
    if (!options->is_object()) return members_.bad("stream_options", *options, "an object");
    Members inner(*options, "stream_options.");
    inner.take("include_usage", out_.include_usage);
    bool obfuscation = false;
    inner.take("include_obfuscation", obfuscation);
    if (obfuscation) inner.fail(unsupported("stream_options.include_obfuscation"));
    if (auto problem = inner.finish()) members_.fail(std::move(*problem));
  }

  void chimera_member() {
    const Json* own = members_.take("chimera");
    if (own == nullptr) return;
    if (!own->is_object()) return members_.bad("chimera", *own, "an object");
    Members inner(*own, "chimera.");
    if (const Json* modules = inner.take("modules")) wire_["modules"] = *modules;
    if (const Json* deadline = inner.take("deadline_ms")) wire_["deadline_ms"] = *deadline;
    if (auto problem = inner.finish()) members_.fail(std::move(*problem));
  }

  void choices() {
    count_ = members_.integer("n", 1, kMaxChoices).value_or(1);
    out_.per_prompt = static_cast<size_t>(count_);
  }

  void chat_input() {
    const Json* messages = members_.take("messages");
    if (messages == nullptr) {
      return members_.fail(bad_field("messages", "missing (expected the conversation)"));
    }
    auto conversation = read_conversation(*messages, alias_.system);
    if (auto* error = std::get_if<ApiError>(&conversation)) return members_.fail(*error);
    wire_["messages"] = std::get<Json>(std::move(conversation));
    if (const Json* more = members_.take("chat_template_kwargs")) {
      wire_["chat_template_kwargs"] = *more;
    }
    add_calls("chat");
  }

  /// One prompt or several; each a text or token ids.
  void text_input() {
    const Json* prompt = members_.take("prompt");
    if (prompt == nullptr) {
      return members_.fail(bad_field("prompt", "missing (expected a text)"));
    }
    const Json& first = prompt->at(0);
    const bool several = prompt->is_array() && (first.is_string() || first.is_array());
    if (!several) return add_prompt(*prompt);
    if (static_cast<int64_t>(prompt->size()) * count_ > kMaxChoices) {
      return members_.fail(
          bad_field("prompt", fmt::format("{} prompts with n {} (expected at most {} choices)",
                                          prompt->size(), count_, kMaxChoices)));
    }
    for (const Json& one : *prompt) add_prompt(one);
  }

  void add_prompt(const Json& prompt) {
    if (prompt.is_string()) {
      wire_["prompt"] = prompt;
      wire_.erase("tokens");
    } else if (prompt.is_array()) {
      wire_["tokens"] = prompt;
      wire_.erase("prompt");
    } else {
      return members_.bad("prompt", prompt, "a text, token ids, or an array of these");
    }
    add_calls("generate");
  }

  /// The wire's own reader checks what was gathered, as the daemon will.
  void add_calls(std::string_view call) {
    if (!members_.ok()) return;
    wire_["id"] = "gateway";
    wire_["call"] = call;
    std::string id;
    auto decoded = wire::decode_request(write_json(wire_), wire::Endpoint::kServe, &id);
    if (const auto* error = std::get_if<wire::Error>(&decoded)) {
      return members_.fail(renamed(*error, call));
    }
    const wire::Call& read = std::get<wire::Request>(decoded).call;
    for (int64_t i = 0; i < count_; ++i) {
      wire::Call copy = read;
      auto& seed = options_of(copy).seed;
      // The same seed for every choice would give the same text every time.
      if (seed) seed = (*seed + static_cast<uint64_t>(i)) % kSeeds;
      out_.calls.push_back(std::move(copy));
    }
  }

  /// "chat.max_tokens: 0 (expected …)", one a line, in the names of the API.
  ApiError renamed(const wire::Error& error, std::string_view call) const {
    ApiError out = from_wire(error);
    const std::string prefix = fmt::format("{}.", call);
    out.message.clear();
    std::string_view rest = error.message;
    while (!rest.empty()) {
      std::string_view line = rest.substr(0, rest.find('\n'));
      rest.remove_prefix(std::min(rest.size(), line.size() + 1));
      if (line.starts_with(prefix)) line.remove_prefix(prefix.size());
      if (!out.message.empty()) out.message += '\n';
      if (line.starts_with("max_tokens:")) {
        line.remove_prefix(std::string_view("max_tokens").size());
        out.message += max_tokens_name_;
      }
      out.message += line;
    }
    out.hint.clear();  // about the wire
    out.param = out.message.substr(0, out.message.find_first_of(":[ "));
    return out;
  }

  const Api api_;
  Members members_;
  const ModelNames& names_;
  Completion out_;
  Alias alias_;
  wire::ModuleFilter of_headers_;
  Json wire_ = Json::object();
  int64_t count_ = 1;
  std::string max_tokens_name_ = "max_tokens";
};

}  // namespace

wire::Generate& options_of(wire::Call& call) {
  if (auto* chat = std::get_if<wire::Chat>(&call)) return chat->options;
  return std::get<wire::Generate>(call);
}

std::variant<Completion, ApiError> read_completion(Api api, const Request& request,
                                                   const ModelNames& names) {
  const auto body = parse_json(request.body, kBodyLimits);
  if (!body.ok()) return ApiError{400, "invalid_json", "body: " + body.status().message()};
  if (!body->is_object()) return ApiError{400, "invalid_json", "body: not a JSON object"};
  return Reader(api, *body, names).read(request);
}

}  // namespace chimera::gateway::openai
