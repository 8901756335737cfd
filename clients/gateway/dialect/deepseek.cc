// V3, R1:  <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>function<｜tool▁sep｜>f
//          ```json
//          {"a": 1}
//          ```<｜tool▁call▁end｜>…<｜tool▁calls▁end｜>
// V3.1:    <｜tool▁calls▁begin｜><｜tool▁call▁begin｜>f<｜tool▁sep｜>{"a": 1}<｜tool▁call▁end｜>…
#include "clients/gateway/dialect/marks.h"
#include "clients/gateway/dialect/reader.h"

namespace chimera::gateway {
namespace {

std::string_view trimmed(std::string_view text) {
  const size_t first = text.find_first_not_of(mark::kSpace);
  if (first == std::string_view::npos) return {};
  return text.substr(first, text.find_last_not_of(mark::kSpace) + 1 - first);
}

/// What stands between the marks of one call.
std::optional<FoundCall> call_between(std::string_view text) {
  const size_t sep = text.find(mark::kDeepSeekSep);
  if (sep == std::string_view::npos) return std::nullopt;
  std::string_view name = trimmed(text.substr(0, sep));
  std::string_view body = text.substr(sep + mark::kDeepSeekSep.size());
  const size_t line = body.find('\n');
  const bool fenced =
      line != std::string_view::npos && trimmed(body.substr(line)).starts_with("```json");
  if (fenced) {  // what stood before is the kind of call: "function"
    name = trimmed(body.substr(0, line));
    body = trimmed(body.substr(line));
    body.remove_prefix(std::string_view("```json").size());
    if (body.ends_with("```")) body.remove_suffix(3);
  }
  const auto value = json_of_text(trimmed(body));
  auto arguments = value ? arguments_of(*value) : std::nullopt;
  if (name.empty() || !arguments) return std::nullopt;
  return FoundCall{std::string(name), std::move(*arguments)};
}

class DeepSeek : public ThinkReader {
 public:
  explicit DeepSeek(bool opened) : ThinkReader(opened, mark::kThink, mark::kThinkEnd) {}

 protected:
  bool answer() override { return in_call_ ? call() : words(); }

 private:
  /// The marks around all calls say nothing that those of each do not.
  bool words() {
    std::string before;
    const auto found =
        in_.find({mark::kDeepSeekCall, mark::kDeepSeekCalls, mark::kDeepSeekCallsEnd}, &before);
    out_.text(before);
    if (!found) return false;
    in_call_ = *found == 0;
    body_.clear();
    return true;
  }

  bool call() {
    std::string before;
    const bool found = in_.find({mark::kDeepSeekCallEnd}, &before).has_value();
    body_ += before;
    if (!found && !in_.ended()) return false;
    auto whole = call_between(body_);  // the last mark may be missing
    if (whole) {
      out_.call(std::move(whole->name), std::move(whole->arguments));
    } else {
      out_.text(std::string(mark::kDeepSeekCall) + body_ +
                std::string(found ? mark::kDeepSeekCallEnd : ""));
    }
    in_call_ = false;
    return true;
  }

  bool in_call_ = false;
  std::string body_;
};

}  // namespace

std::unique_ptr<Parser> make_deepseek(bool opened) { return std::make_unique<DeepSeek>(opened); }

}  // namespace chimera::gateway
