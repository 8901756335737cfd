// {"name": "f", "parameters": {"a": 1}} as the whole answer, or several with ; between them; and
// the same behind <|python_tag|>.
//
// Words that happen to be such an object are no call unless the request has a tool of that name.
#include "clients/gateway/dialect/marks.h"
#include "clients/gateway/dialect/reader.h"

namespace chimera::gateway {
namespace {

class Llama : public ThinkReader {
 public:
  Llama(bool opened, std::shared_ptr<const Json> tools)
      : ThinkReader(opened, mark::kThink, mark::kThinkEnd), tools_(std::move(tools)) {}

 protected:
  bool answer() override {
    switch (state_) {
      case State::kBegin:
        return begin();
      case State::kJson:
        return json();
      case State::kBetween:
        return between();
      case State::kWords:
        return words();
    }
    return false;
  }

 private:
  enum class State : uint8_t { kBegin, kJson, kBetween, kWords };

  bool begin() {
    const size_t blanks = in_.rest().find_first_not_of(mark::kSpace);
    if (blanks == std::string_view::npos && !in_.ended()) return false;
    const bool object = blanks != std::string_view::npos && in_.rest()[blanks] == '{';
    if (object) before_ = in_.take(blanks);
    state_ = object ? State::kJson : State::kWords;
    return true;
  }

  bool words() {
    std::string before;
    const bool found = in_.find({mark::kPythonTag}, &before).has_value();
    out_.text(before);
    if (!found) return false;
    before_ = mark::kPythonTag;
    state_ = State::kJson;
    return true;
  }

  bool json() {
    if (!in_.skip_space()) return false;
    switch (json_.read(in_)) {
      case JsonValue::Found::kMore:
        return false;
      case JsonValue::Found::kNone:
        return no_call("");
      case JsonValue::Found::kWhole:
        break;
    }
    const auto call = one_of_ours();
    if (!call) return no_call(json_.text());
    out_.call(call->name, call->arguments);
    json_ = {};
    state_ = State::kBetween;
    return true;
  }

  std::optional<FoundCall> one_of_ours() const {
    auto call = call_of_text(json_.text(), "parameters");
    if (const auto value = json_of_text(json_.text()); value && value->contains("arguments")) {
      call = call_of(*value, "arguments");
    }
    if (!call || function_of(*tools_, call->name).is_null()) return std::nullopt;
    return call;
  }

  bool between() {
    if (!in_.skip_space()) return false;
    const std::string_view rest = in_.rest();
    if (rest.starts_with('{')) {
      before_.clear();
      state_ = State::kJson;
    } else if (rest.starts_with(';')) {
      in_.take(1);
    } else {
      state_ = State::kWords;
    }
    return true;
  }

  bool no_call(const std::string& read) {
    out_.text(before_ + read);
    json_ = {};
    state_ = State::kWords;
    return true;
  }

  const std::shared_ptr<const Json> tools_;
  State state_ = State::kBegin;
  JsonValue json_;
  std::string before_;  // what stands before the object, if that is no call
};

}  // namespace

std::unique_ptr<Parser> make_llama(bool opened, std::shared_ptr<const Json> tools) {
  return std::make_unique<Llama>(opened, std::move(tools));
}

}  // namespace chimera::gateway
