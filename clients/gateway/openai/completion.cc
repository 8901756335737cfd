#include "clients/gateway/openai/completion.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "clients/gateway/body/members.h"
#include "clients/gateway/body/wire_call.h"
#include "clients/gateway/openai/conversation.h"
#include "clients/gateway/openai/format.h"
#include "clients/gateway/openai/tools.h"
#include "clients/gateway/openai/unsupported.h"
#include "clients/wire/ranges.h"

namespace chimera::gateway::openai {
namespace {

constexpr int64_t kMaxChoices = 128;        // as the API says
constexpr int64_t kDefaultTextTokens = 16;  // likewise, of /v1/completions
constexpr uint64_t kSeeds = uint64_t{1} << 63;

/// Fields that the wire has under the same name, and ranges of its own.
constexpr std::array<std::string_view, 10> kSame = {"temperature",
                                                    "top_p",
                                                    "top_k",
                                                    "min_p",
                                                    "repetition_penalty",
                                                    "frequency_penalty",
                                                    "presence_penalty",
                                                    "logit_bias",
                                                    "seed",
                                                    "ignore_eos"};

/// Builds the calls of one request.
class Reader {
 public:
  Reader(Api api, const Json& body) : api_(api), members_(body) {}

  std::variant<Completion, ApiError> read(const Request& request, const ModelNames& names) {
    call_.composition(members_, request, names);
    if (!members_.ok()) return *members_.finish();
    out_.api = api_;
    out_.model = call_.model();
    sampling();
    stream();
    if (api_ == Api::kChat) response_format();
    refuse_unsupported(members_, api_);
    choices();
    api_ == Api::kChat ? chat_input() : text_input();
    if (auto problem = members_.finish()) return *problem;
    return std::move(out_);
  }

 private:
  void sampling() {
    for (const std::string_view name : kSame) call_.take(members_, name);
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
        call_.rename("max_tokens", "max_completion_tokens");
      }
    }
    if (most != nullptr) {
      wire_["max_tokens"] = *most;
    } else if (!wire_.contains("max_tokens")) {
      // A conversation's answer ends by itself, at the latest with the context.
      wire_["max_tokens"] = api_ == Api::kChat ? wire::range::max_tokens.max : kDefaultTextTokens;
    }
  }

  /// Of chats a flag and a number, of texts the number alone.
  void logprobs() {
    const IntRange& most = wire::range::top_logprobs;
    std::optional<int64_t> alternatives;
    if (api_ == Api::kChat) {
      members_.take("logprobs", out_.logprobs);
      alternatives = members_.integer("top_logprobs", most.min, most.max);
      if (alternatives.value_or(0) > 0 && !out_.logprobs) {
        members_.fail(bad_field("top_logprobs", "given without logprobs: true"));
      }
    } else {
      alternatives = members_.integer("logprobs", most.min, most.max);
      out_.logprobs = alternatives.has_value();
    }
    out_.top_logprobs = alternatives.value_or(0);
    wire_["top_logprobs"] = out_.top_logprobs;
  }

  void stream() {
    members_.take("stream", out_.stream);
    const Json* options = members_.take("stream_options");
    // Events bring each token's text, which the whole answer does not.
    wire_["stream"] = out_.stream || out_.logprobs;
    if (out_.logprobs) wire_["logprobs"] = true;
    out_.shares = wire_.value("shares", false);
    if (out_.shares && !out_.stream) {
      return members_.fail(bad_field("chimera.shares", "given without stream: true"));
    }
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

  void response_format() {
    const Json* format = members_.take("response_format");
    if (format == nullptr) return;
    Json constraint = read_format(members_, "response_format", *format, FormatShape::kNested);
    if (!constraint.is_null()) wire_["constraint"] = std::move(constraint);
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
    auto conversation = read_conversation(*messages, call_.system());
    if (auto* error = std::get_if<ApiError>(&conversation)) return members_.fail(*error);
    if (!messages->empty()) {
      out_.after_tool = messages->at(messages->size() - 1)["role"] == Json("tool");
    }
    wire_["messages"] = std::get<Json>(std::move(conversation));
    call_.take(members_, "chat_template_kwargs");
    out_.rules = take_tools(members_, ToolShape::kNested);
    if (out_.rules.any()) wire_["tools"] = *out_.rules.tools;
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

  void add_calls(std::string_view name) {
    if (!members_.ok()) return;
    const auto read = call_.read(name);
    if (const auto* error = std::get_if<ApiError>(&read)) return members_.fail(*error);
    for (int64_t i = 0; i < count_; ++i) {
      wire::Call copy = std::get<wire::Call>(read);
      auto& seed = options_of(copy).seed;
      // The same seed for every choice would give the same text every time.
      if (seed) seed = (*seed + static_cast<uint64_t>(i)) % kSeeds;
      out_.calls.push_back(std::move(copy));
    }
  }

  const Api api_;
  Members members_;
  Completion out_;
  WireCall call_;
  Json& wire_ = call_.fields();
  int64_t count_ = 1;
};

}  // namespace

std::variant<Completion, ApiError> read_completion(Api api, const Request& request,
                                                   const ModelNames& names) {
  const auto body = parse_body(request.body);
  if (const auto* error = std::get_if<ApiError>(&body)) return *error;
  return Reader(api, std::get<Json>(body)).read(request, names);
}

}  // namespace chimera::gateway::openai
