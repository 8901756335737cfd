#include "clients/gateway/openai/response.h"

#include <array>

#include "clients/gateway/body/members.h"
#include "clients/gateway/body/wire_call.h"
#include "clients/gateway/openai/format.h"
#include "clients/gateway/openai/input_items.h"
#include "clients/gateway/openai/tools.h"
#include "clients/gateway/openai/unsupported.h"
#include "clients/wire/ranges.h"

namespace chimera::gateway::openai {
namespace {

/// Fields that the wire has under the same name; all but the first two are not OpenAI's.
constexpr std::array<std::string_view, 9> kSameInResponses = {
    "temperature",         "top_p", "top_k",      "min_p",
    "repetition_penalty",  "seed",  "logit_bias", "ignore_eos",
    "chat_template_kwargs"};

class ResponseReader {
 public:
  explicit ResponseReader(const Json& body) : body_(body), members_(body) {}

  std::variant<ResponseRequest, ApiError> read(const Request& request, const ModelNames& names) {
    call_.composition(members_, request, names);
    if (!members_.ok()) return *members_.finish();
    out_.model = call_.model();
    if (wire_.value("shares", false)) members_.fail(unsupported("chimera.shares"));
    for (const std::string_view name : kSameInResponses) call_.take(members_, name);
    max_tokens();
    stream();
    refuse_unsupported_of_responses(members_);
    text();
    out_.rules = take_tools(members_, ToolShape::kFlat);
    if (out_.rules.any()) wire_["tools"] = *out_.rules.tools;
    input();
    if (auto problem = members_.finish()) return *problem;
    auto call = call_.read("chat");
    if (auto* error = std::get_if<ApiError>(&call)) return std::move(*error);
    out_.call = std::get<wire::Call>(std::move(call));
    out_.echo = echo();
    return std::move(out_);
  }

 private:
  void max_tokens() {
    call_.rename("max_tokens", "max_output_tokens");
    if (const Json* most = members_.take("max_output_tokens")) {
      wire_["max_tokens"] = *most;
    } else if (!wire_.contains("max_tokens")) {
      wire_["max_tokens"] = wire::range::max_tokens.max;  // at the latest with the context
    }
  }

  void stream() {
    members_.take("stream", out_.stream);
    wire_["stream"] = out_.stream;
    const Json* options = members_.take("stream_options");
    if (options == nullptr) return;
    if (!options->is_object()) return members_.bad("stream_options", *options, "an object");
    Members inner(*options, "stream_options.");
    bool obfuscation = false;
    inner.take("include_obfuscation", obfuscation);
    if (obfuscation) inner.fail(unsupported("stream_options.include_obfuscation"));
    if (auto problem = inner.finish()) members_.fail(std::move(*problem));
  }

  void text() {
    const Json* asked = members_.take("text");
    if (asked == nullptr) return;
    if (!asked->is_object()) return members_.bad("text", *asked, "an object");
    Members inner(*asked, "text.");
    if (const Json* format = inner.take("format")) {
      Json constraint = read_format(inner, "format", *format, FormatShape::kFlat);
      if (!constraint.is_null()) wire_["constraint"] = std::move(constraint);
    }
    if (inner.take("verbosity") != nullptr) inner.fail(unsupported("text.verbosity"));
    if (auto problem = inner.finish()) members_.fail(std::move(*problem));
  }

  void input() {
    const std::string instructions = members_.text("instructions").value_or("");
    const Json* given = members_.take("input");
    auto list = read_input(given == nullptr ? Json() : *given, instructions, call_.system());
    if (auto* error = std::get_if<ApiError>(&list)) return members_.fail(std::move(*error));
    Json& messages = std::get<Json>(list);
    call_.rename("messages", "input");
    out_.after_tool = messages[messages.size() - 1]["role"] == Json("tool");
    wire_["messages"] = std::move(messages);
  }

  /// The API's answers say what they were asked.
  Json echo() const {
    const auto given = [this](const char* name, Json absent) {
      const Json& value = body_[name];
      return value.is_null() ? std::move(absent) : value;
    };
    const Json text = {{"format", Json{{"type", "text"}}}};
    return {{"background", false},
            {"instructions", given("instructions", nullptr)},
            {"max_output_tokens", given("max_output_tokens", nullptr)},
            {"metadata", given("metadata", Json::object())},
            {"model", out_.model},
            {"parallel_tool_calls", out_.rules.parallel},
            {"previous_response_id", nullptr},
            {"reasoning", Json{{"effort", nullptr}, {"summary", nullptr}}},
            {"service_tier", "default"},
            {"store", false},
            {"temperature", given("temperature", 1.0)},
            {"text", given("text", text)},
            {"tool_choice", given("tool_choice", "auto")},
            {"tools", given("tools", Json::array())},
            {"top_logprobs", 0},
            {"top_p", given("top_p", 1.0)},
            {"truncation", "disabled"},
            {"user", given("user", nullptr)}};
  }

  const Json& body_;
  Members members_;
  WireCall call_;
  Json& wire_ = call_.fields();
  ResponseRequest out_;
};

}  // namespace

std::variant<ResponseRequest, ApiError> read_response_request(const Request& request,
                                                              const ModelNames& names) {
  const auto body = parse_body(request.body);
  if (const auto* error = std::get_if<ApiError>(&body)) return *error;
  return ResponseReader(std::get<Json>(body)).read(request, names);
}

}  // namespace chimera::gateway::openai
