#include "text/template/syntax/string_literal.h"

#include <fmt/format.h>

#include <charconv>
#include <cmath>

#include "text/template/value/big_integer.h"
#include "text/unicode.h"

namespace chimera::jinja {
namespace {

constexpr std::string_view kSimple = "\\'\"abfnrtv";
constexpr std::string_view kMeaning = "\\'\"\a\b\f\n\r\t\v";

bool is_decimal_digit(char c) { return c >= '0' && c <= '9'; }

/// Appends the character of a numeric escape of exactly `digits` hexadecimal digits at `at`.
size_t hex_escape(std::string_view literal, size_t at, size_t digits, std::string& out,
                  std::string* problem) {
  uint32_t code = 0;
  const std::string_view hex = literal.substr(at, digits);
  const auto parsed = std::from_chars(hex.data(), hex.data() + hex.size(), code, 16);
  if (hex.size() != digits || parsed.ptr != hex.data() + hex.size()) {
    *problem = "a \\x, \\u or \\U escape has too few hexadecimal digits";
  } else if (code > 0x10FFFF || (code >= 0xD800 && code <= 0xDFFF)) {
    *problem = "an escape names no Unicode character";
  } else {
    append_char(code, out);
  }
  return at + digits;
}

size_t octal_escape(std::string_view literal, size_t at, std::string& out) {
  uint32_t code = 0;
  size_t end = at;
  while (end < literal.size() && end < at + 3 && literal[end] >= '0' && literal[end] <= '7') {
    code = code * 8 + static_cast<uint32_t>(literal[end++] - '0');
  }
  append_char(code, out);
  return end;
}

/// End of digits of `base`, single underscores between them allowed.
size_t skip_digits(std::string_view text, size_t at, int base) {
  const auto fits = [&](size_t i) {
    if (i >= text.size()) return false;
    const char c = text[i];
    if (base <= 10) return c >= '0' && c < '0' + base;
    return is_decimal_digit(c) || (c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F');
  };
  while (fits(at) || (at < text.size() && text[at] == '_' && fits(at + 1))) ++at;
  return at;
}

std::string without_underscores(std::string_view digits) {
  std::string out;
  for (const char c : digits) {
    if (c != '_') out += c;
  }
  return out;
}

/// End of the fraction and exponent behind the digits that end at `at`; `at` when there are none.
size_t skip_real(std::string_view text, size_t at) {
  size_t end = at;
  if (end + 1 < text.size() && text[end] == '.' && is_decimal_digit(text[end + 1])) {
    end = skip_digits(text, end + 1, 10);
  }
  if (end < text.size() && (text[end] == 'e' || text[end] == 'E')) {
    size_t exponent = end + 1;
    if (exponent < text.size() && (text[exponent] == '+' || text[exponent] == '-')) ++exponent;
    if (exponent < text.size() && is_decimal_digit(text[exponent])) {
      end = skip_digits(text, exponent, 10);
    }
  }
  return end;
}

}  // namespace

std::string unescape(std::string_view literal, std::string* problem) {
  std::string out;
  for (size_t at = 0; at < literal.size() && problem->empty();) {
    if (literal[at] != '\\' || at + 1 == literal.size()) {
      out += literal[at++];
      continue;
    }
    const char c = literal[at + 1];
    if (const size_t simple = kSimple.find(c); simple != std::string_view::npos) {
      out += kMeaning[simple];
      at += 2;
    } else if (c == '\n') {
      at += 2;
    } else if (c == 'x' || c == 'u' || c == 'U') {
      at = hex_escape(literal, at + 2, c == 'x' ? 2 : (c == 'u' ? 4 : 8), out, problem);
    } else if (c >= '0' && c <= '7') {
      at = octal_escape(literal, at + 1, out);
    } else if (c == 'N') {
      *problem = "\\N{…} escapes are not supported (expected the character or \\u…)";
    } else {
      out += '\\';  // as in Python, an unknown escape stays as it is
      ++at;
    }
  }
  return out;
}

NumberLiteral read_number(std::string_view text, size_t at) {
  NumberLiteral out;
  const char kind = at + 1 < text.size() && text[at] == '0' ? text[at + 1] : ' ';
  const int base = kind == 'x' || kind == 'X'   ? 16
                   : kind == 'o' || kind == 'O' ? 8
                   : kind == 'b' || kind == 'B' ? 2
                                                : 10;
  const size_t first = base == 10 ? at : at + 2;
  out.end = skip_digits(text, first, base);
  // "a.0.5" is two subscripts, not a member and a fraction.
  const bool whole = base != 10 || (at > 0 && text[at - 1] == '.');
  const size_t real_end = whole ? out.end : skip_real(text, out.end);
  if (real_end > out.end) {
    out.is_real = true;
    out.end = real_end;
    const std::string digits = without_underscores(text.substr(at, out.end - at));
    const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), out.real);
    if (parsed.ec == std::errc::result_out_of_range) out.real = HUGE_VAL;
    return out;
  }
  const std::string digits = without_underscores(text.substr(first, out.end - first));
  const auto value = integer_of(digits, base);
  if (!value) {
    out.problem = fmt::format("the integer has no digits or more than {}", kMaxDigits);
  } else if (base == 10 && digits.size() > 1 && digits[0] == '0' && truth(*value)) {
    out.problem = "an integer may not begin with 0";
  } else {
    out.integer = *value;
  }
  return out;
}

}  // namespace chimera::jinja
