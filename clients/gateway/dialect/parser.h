// The text of an answer, as it comes -> words, reasoning and calls of tools.
//
// Text is cut anywhere: a mark that may have begun is held back until it is certain. A call is told
// when it is whole; what begins as one and is none stays text, so nothing that the model wrote is
// lost but the marks, and blanks beside them. Where no mark is, the words are the text, to the
// byte.
//
// Thread safety: none; a parser belongs to one answer.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "base/json/json.h"
#include "clients/gateway/dialect/dialect.h"

namespace chimera::gateway {

struct Piece {
  enum class Kind : uint8_t { kText, kReasoning, kCall } kind = Kind::kText;
  std::string text{};       // of a call: the name
  std::string arguments{};  // of a call: a JSON object
  friend bool operator==(const Piece&, const Piece&) = default;
};

class Parser {
 public:
  virtual ~Parser() = default;
  virtual std::vector<Piece> push(std::string_view text) = 0;
  /// Once no text will follow.
  virtual std::vector<Piece> finish() = 0;
};

/// `tools`: those of the request as the OpenAI API has them, an array; null or empty: none, and
/// what looks like a call is text.
std::unique_ptr<Parser> make_parser(const Reading& reading, std::shared_ptr<const Json> tools);

}  // namespace chimera::gateway
