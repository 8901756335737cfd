#include "clients/gateway/dialect/reader.h"

#include "base/json/reader.h"
#include "base/json/writer.h"
#include "clients/gateway/dialect/marks.h"

namespace chimera::gateway {
namespace {

class Plain : public Parser {
 public:
  std::vector<Piece> push(std::string_view text) override {
    if (text.empty()) return {};
    return {{.kind = Piece::Kind::kText, .text = std::string(text)}};
  }
  std::vector<Piece> finish() override { return {}; }
};

}  // namespace

std::vector<Piece> Reader::push(std::string_view text) {
  in_.add(text);
  while (step()) {
  }
  return out_.take();
}

std::vector<Piece> Reader::finish() {
  in_.end();
  while (step()) {
  }
  out_.finish();
  return out_.take();
}

bool ThinkReader::step() {
  switch (state_) {
    case State::kBegin:
      return begin();
    case State::kReasoning: {
      std::string before;
      const bool ends = in_.find({close_}, &before).has_value();
      out_.reasoning(before);
      if (!ends) return false;
      out_.end_reasoning();
      state_ = State::kAnswer;
      return true;
    }
    case State::kAnswer:
      return answer();
  }
  return false;
}

/// Blanks before the mark go with it; before anything else they stay.
bool ThinkReader::begin() {
  const std::string_view text = in_.rest();
  const size_t blanks = text.find_first_not_of(mark::kSpace);
  if (blanks == std::string_view::npos && !in_.ended()) return false;
  const std::string_view words = blanks == std::string_view::npos ? "" : text.substr(blanks);
  if (words.size() < open_.size() && open_.starts_with(words) && !in_.ended()) return false;
  state_ = State::kAnswer;
  if (words.starts_with(open_)) {
    in_.take(blanks + open_.size());
    state_ = State::kReasoning;
  }
  return true;
}

bool ThinkReader::answer() {
  out_.text(in_.take_rest());
  return false;
}

JsonValue::Found JsonValue::read(Input& in) {
  const std::string_view text = in.rest();
  if (text.empty()) return in.ended() ? Found::kNone : Found::kMore;
  if (text[0] != '{' && text[0] != '[') return Found::kNone;
  const auto end = end_.look(text);
  if (!end) return in.ended() ? Found::kNone : Found::kMore;
  text_ = in.take(*end);
  return Found::kWhole;
}

std::optional<Json> json_of_text(std::string_view text) {
  // Deeper than what constraints let be written (64), with what stands around arguments.
  auto read = parse_json(text, {.max_depth = 72, .duplicates = DuplicateKeys::kLastCounts});
  if (!read.ok()) return std::nullopt;
  return std::move(*read);
}

std::optional<std::string> arguments_of(const Json& value) {
  if (value.is_null()) return "{}";
  if (value.is_object()) return write_json(value);
  const std::string* text = value.string();
  if (text == nullptr) return std::nullopt;
  const auto inner = json_of_text(*text);
  if (!inner || !inner->is_object()) return std::nullopt;
  return write_json(*inner);
}

std::optional<FoundCall> call_of(const Json& value, std::string_view arguments) {
  const std::string* name = value["name"].string();
  auto text = arguments_of(value[arguments]);
  if (name == nullptr || name->empty() || !text) return std::nullopt;
  return FoundCall{*name, std::move(*text)};
}

std::optional<FoundCall> call_of_text(std::string_view json, std::string_view arguments) {
  const auto value = json_of_text(json);
  return value ? call_of(*value, arguments) : std::nullopt;
}

const Json& function_of(const Json& tools, std::string_view name) {
  static const Json none;
  for (const Json& tool : tools) {
    const std::string* is = tool["function"]["name"].string();
    if (is != nullptr && *is == name) return tool["function"];
  }
  return none;
}

std::unique_ptr<Parser> make_plain() { return std::make_unique<Plain>(); }

std::unique_ptr<Parser> make_parser(const Reading& reading, std::shared_ptr<const Json> tools) {
  const bool any = tools != nullptr && !tools->empty();
  const bool opened = reading.opened;
  switch (reading.dialect) {
    case Dialect::kPlain:
      return make_plain();
    case Dialect::kHarmony:
      return make_harmony(any);
    case Dialect::kMistral:
      if (any) return make_mistral(opened);
      return std::make_unique<ThinkReader>(opened, mark::kMistralThink, mark::kMistralThinkEnd);
    case Dialect::kHermes:
      if (any) return make_hermes(opened, std::move(tools));
      break;
    case Dialect::kLlama:
      if (any) return make_llama(opened, std::move(tools));
      break;
    case Dialect::kDeepSeek:
      if (any) return make_deepseek(opened);
      break;
    case Dialect::kThink:
      break;
  }
  return std::make_unique<ThinkReader>(opened, mark::kThink, mark::kThinkEnd);
}

}  // namespace chimera::gateway
