// String and number literals of template expressions, written as in Python.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>

#include "text/template/value/value.h"

namespace chimera::jinja {

/// The value of a string literal without its quotes. `problem` says what is wrong with it, if
/// anything.
std::string unescape(std::string_view literal, std::string* problem);

struct NumberLiteral {
  size_t end = 0;  // behind the literal
  bool is_real = false;
  Value integer = int64_t{0};
  double real = 0;
  std::string problem;
};
/// The number at `at`. REQUIRES: a digit stands there.
NumberLiteral read_number(std::string_view text, size_t at);

}  // namespace chimera::jinja
