// [TOOL_CALLS][{"name": "f", "arguments": {"a": 1}}, …]           up to the tokenizer v7
// [TOOL_CALLS]f[ARGS]{"a": 1}[TOOL_CALLS]g[CALL_ID]x[ARGS]{}      from v11 on; v11 without [ARGS]
#include "clients/gateway/dialect/marks.h"
#include "clients/gateway/dialect/reader.h"

namespace chimera::gateway {
namespace {

constexpr size_t kMaxName = 256;  // a name that does not end is none

class Mistral : public ThinkReader {
 public:
  explicit Mistral(bool opened)
      : ThinkReader(opened, mark::kMistralThink, mark::kMistralThinkEnd) {}

 protected:
  bool answer() override {
    switch (state_) {
      case State::kWords:
        return words();
      case State::kOpened:
        return opened();
      case State::kList:
      case State::kArguments:
        return json();
      case State::kName:
        return name();
    }
    return false;
  }

 private:
  enum class State : uint8_t { kWords, kOpened, kList, kName, kArguments };

  bool words() {
    std::string before;
    const bool found = in_.find({mark::kMistralCalls}, &before).has_value();
    out_.text(before);
    if (!found) return false;
    read_ = mark::kMistralCalls;
    json_ = {};
    state_ = State::kOpened;
    return true;
  }

  bool opened() {
    if (!in_.skip_space()) return false;
    const auto id = in_.starts_with(mark::kMistralCallId),
               args = in_.starts_with(mark::kMistralArgs);
    if (!in_.ended() && (!id || !args)) return false;
    const bool list = in_.rest().starts_with('[') && !(id && *id) && !(args && *args);
    state_ = list ? State::kList : State::kName;
    name_.clear();
    return true;
  }

  /// Up to the object; what is not the name is the id, which is given anew.
  bool name() {
    const std::string_view rest = in_.rest();
    const size_t brace = rest.find('{');
    if (brace == std::string_view::npos && rest.size() <= kMaxName && !in_.ended()) return false;
    if (brace == std::string_view::npos || brace > kMaxName) return no_call("");
    const std::string head = in_.take(brace);
    read_ += head;
    name_ =
        head.substr(0, std::min(head.find(mark::kMistralCallId), head.find(mark::kMistralArgs)));
    name_.erase(name_.find_last_not_of(mark::kSpace) + 1);
    state_ = State::kArguments;
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
    const auto value = json_of_text(json_.text());
    const bool told = value && (state_ == State::kList ? list(*value) : arguments(*value));
    if (!told) return no_call(json_.text());
    state_ = State::kWords;
    return true;
  }

  bool list(const Json& value) {
    std::vector<FoundCall> calls;
    for (const Json& item : value) {
      auto call = call_of(item, "arguments");
      if (!call) return false;
      calls.push_back(std::move(*call));
    }
    for (FoundCall& call : calls) out_.call(std::move(call.name), std::move(call.arguments));
    return !calls.empty();
  }

  bool arguments(const Json& value) {
    auto text = arguments_of(value);
    if (name_.empty() || !text) return false;
    out_.call(name_, std::move(*text));
    return true;
  }

  bool no_call(const std::string& read) {
    out_.text(read_ + read);
    state_ = State::kWords;
    return true;
  }

  State state_ = State::kWords;
  JsonValue json_;
  std::string read_, name_;
};

}  // namespace

std::unique_ptr<Parser> make_mistral(bool opened) { return std::make_unique<Mistral>(opened); }

}  // namespace chimera::gateway
