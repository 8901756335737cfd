// <tool_call>
// {"name": "f", "arguments": {"a": 1}}
// </tool_call>
//
// and, of Qwen's Coder models, between the same marks
//
// <function=f>
// <parameter=a>
// 1
// </parameter>
// </function>
#include "base/json/writer.h"
#include "clients/gateway/dialect/marks.h"
#include "clients/gateway/dialect/reader.h"

namespace chimera::gateway {
namespace {

/// Without the line breaks that frame a parameter.
std::string_view unframed(std::string_view value) {
  if (value.starts_with('\n')) value.remove_prefix(1);
  if (value.ends_with('\n')) value.remove_suffix(1);
  return value;
}

/// What a parameter is written as is text; the tool's schema says whether it means something else.
Json value_of(std::string_view text, const Json& schema) {
  if (schema["type"] == Json("string")) return text;
  auto value = json_of_text(text);
  return value ? std::move(*value) : Json(text);
}

/// f>, parameters: what stands between <function= and </function>.
std::optional<FoundCall> call_of_xml(std::string_view text, const Json& tools) {
  const size_t end = text.find('>');
  if (end == std::string_view::npos || end == 0) return std::nullopt;
  FoundCall call{.name = std::string(text.substr(0, end)), .arguments = {}};
  const Json& properties = function_of(tools, call.name)["parameters"]["properties"];
  Json arguments = Json::object();
  text.remove_prefix(end + 1);
  while (true) {
    const size_t at = text.find(mark::kParameter);
    const std::string_view between = text.substr(0, at);
    if (between.find_first_not_of(mark::kSpace) != std::string_view::npos) return std::nullopt;
    if (at == std::string_view::npos) break;
    text.remove_prefix(at + mark::kParameter.size());
    const size_t named = text.find('>'), closed = text.find(mark::kParameterEnd);
    if (named == std::string_view::npos || closed == std::string_view::npos || closed < named) {
      return std::nullopt;
    }
    const std::string name(text.substr(0, named));
    arguments[name] =
        value_of(unframed(text.substr(named + 1, closed - named - 1)), properties[name]);
    text.remove_prefix(closed + mark::kParameterEnd.size());
  }
  call.arguments = write_json(arguments);
  return call;
}

class Hermes : public ThinkReader {
 public:
  Hermes(bool opened, std::shared_ptr<const Json> tools)
      : ThinkReader(opened, mark::kThink, mark::kThinkEnd), tools_(std::move(tools)) {}

 protected:
  bool answer() override {
    switch (state_) {
      case State::kWords:
        return words();
      case State::kOpened:
        return opened();
      case State::kJson:
        return json();
      case State::kXml:
        return xml();
      case State::kClose:
        return close();
    }
    return false;
  }

 private:
  enum class State : uint8_t { kWords, kOpened, kJson, kXml, kClose };

  bool words() {
    std::string before;
    const bool found = in_.find({mark::kToolCall}, &before).has_value();
    out_.text(before);
    if (!found) return false;
    state_ = State::kOpened;
    return true;
  }

  bool opened() {
    if (!in_.skip_space()) return false;
    const auto xml = in_.starts_with(mark::kFunction);
    if (!xml) return false;
    if (*xml) in_.take(mark::kFunction.size());
    json_ = {};
    body_.clear();
    state_ = *xml ? State::kXml : State::kJson;
    return true;
  }

  bool json() {
    switch (json_.read(in_)) {
      case JsonValue::Found::kMore:
        return false;
      case JsonValue::Found::kNone:
        return no_call("");
      case JsonValue::Found::kWhole:
        break;
    }
    auto call = call_of_text(json_.text(), "arguments");
    if (!call) return no_call(json_.text());
    out_.call(std::move(call->name), std::move(call->arguments));
    state_ = State::kClose;
    return true;
  }

  bool xml() {
    std::string before;
    const bool found = in_.find({mark::kFunctionEnd}, &before).has_value();
    body_ += before;
    if (!found && !in_.ended()) return false;
    auto call = found ? call_of_xml(body_, *tools_) : std::nullopt;
    if (!call) {
      return no_call(std::string(mark::kFunction) + body_ +
                     std::string(found ? mark::kFunctionEnd : ""));
    }
    out_.call(std::move(call->name), std::move(call->arguments));
    state_ = State::kClose;
    return true;
  }

  /// Some models leave the closing mark out.
  bool close() {
    if (!in_.skip_space()) return false;
    const auto closed = in_.starts_with(mark::kToolCallEnd);
    if (!closed) return false;
    if (*closed) in_.take(mark::kToolCallEnd.size());
    state_ = State::kWords;
    return true;
  }

  bool no_call(const std::string& read) {
    out_.text(std::string(mark::kToolCall) + read);
    state_ = State::kWords;
    return true;
  }

  const std::shared_ptr<const Json> tools_;
  State state_ = State::kWords;
  JsonValue json_;
  std::string body_;
};

}  // namespace

std::unique_ptr<Parser> make_hermes(bool opened, std::shared_ptr<const Json> tools) {
  return std::make_unique<Hermes>(opened, std::move(tools));
}

}  // namespace chimera::gateway
