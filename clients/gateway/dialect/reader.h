// What the parsers of all dialects share. Private to the room.
//
// Thread safety: none.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>

#include "clients/gateway/dialect/input.h"
#include "clients/gateway/dialect/output.h"
#include "clients/gateway/dialect/parser.h"

namespace chimera::gateway {

class Reader : public Parser {
 public:
  std::vector<Piece> push(std::string_view text) override;
  std::vector<Piece> finish() override;

 protected:
  /// Reads on; whether there was something to read, so that it is worth being called again.
  virtual bool step() = 0;

  Input in_;
  Output out_;
};

/// Reasoning between two marks before the answer, and then the answer.
class ThinkReader : public Reader {
 public:
  ThinkReader(bool opened, std::string_view open, std::string_view close)
      : open_(open), close_(close), state_(opened ? State::kReasoning : State::kBegin) {}

 protected:
  bool step() override;
  /// The answer behind the reasoning. Here: words alone.
  virtual bool answer();

 private:
  enum class State : uint8_t { kBegin, kReasoning, kAnswer };
  bool begin();
  const std::string_view open_, close_;
  State state_;
};

/// A JSON value out of an Input: reads an object or array to its end.
class JsonValue {
 public:
  enum class Found : uint8_t { kMore, kNone, kWhole };
  /// kWhole: `text()` is it, and was read. kNone: what stands here is no JSON or ends within it.
  Found read(Input& in);
  const std::string& text() const { return text_; }

 private:
  JsonEnd end_;
  std::string text_;
};

/// A call of {"name": …, "arguments": …}, where `arguments` is what the dialect calls them.
struct FoundCall {
  std::string name, arguments;
};
std::optional<FoundCall> call_of_text(std::string_view json, std::string_view arguments);
std::optional<FoundCall> call_of(const Json& value, std::string_view arguments);
/// The arguments alone: an object, or one that is encoded as a string once more.
std::optional<std::string> arguments_of(const Json& value);
std::optional<Json> json_of_text(std::string_view text);
/// A function of `tools` by name, else null.
const Json& function_of(const Json& tools, std::string_view name);

std::unique_ptr<Parser> make_plain();
std::unique_ptr<Parser> make_hermes(bool opened, std::shared_ptr<const Json> tools);
std::unique_ptr<Parser> make_llama(bool opened, std::shared_ptr<const Json> tools);
std::unique_ptr<Parser> make_mistral(bool opened);
std::unique_ptr<Parser> make_deepseek(bool opened);
std::unique_ptr<Parser> make_harmony(bool tools);

}  // namespace chimera::gateway
