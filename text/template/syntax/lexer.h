// Template source to tokens, with Jinja's whitespace control as Hugging Face sets it: trim_blocks
// and lstrip_blocks on, keep_trailing_newline off.
//
// Thread safety: pure function.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/template/value/value.h"

namespace chimera::jinja {

struct Token {
  enum class Type : uint8_t {
    kData,           // text between tags
    kVariableBegin,  // {{
    kVariableEnd,
    kBlockBegin,  // {%
    kBlockEnd,
    kName,
    kString,  // `text` is the value, escapes resolved
    kInteger,
    kFloat,
    kOperator,  // `text` is its spelling
    kEnd,
  };
  Type type = Type::kEnd;
  std::string text;
  Value integer = int64_t{0};
  double real = 0;
  int line = 1;

  bool is_operator(std::string_view spelling) const {
    return type == Type::kOperator && text == spelling;
  }
  bool is_name(std::string_view name) const { return type == Type::kName && text == name; }
};

/// The last token is kEnd. data_corrupt names the line. REQUIRES: valid UTF-8.
Result<std::vector<Token>> tokenize(std::string_view source);

/// "template line 7: <message>" as data_corrupt.
Status template_error(int line, const std::string& message);

}  // namespace chimera::jinja
