#include "text/template/value/number.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace chimera::jinja {
namespace {

constexpr double kInt64Limit = 9223372036854775808.0;  // 2^63, exact

/// Exact comparison of an integer with a float: -1, 0, 1; nullopt for NaN.
std::optional<int> compare_exact(int64_t a, double b) {
  if (std::isnan(b)) return std::nullopt;
  if (b >= kInt64Limit) return -1;
  if (b < -kInt64Limit) return 1;
  const double whole = std::floor(b);
  const auto integer = static_cast<int64_t>(whole);
  if (a != integer) return a < integer ? -1 : 1;
  return b > whole ? -1 : 0;
}

/// Where one of two numbers is big, it is farther from 0 than whatever 64 bits hold.
std::optional<int> compare_big(const Value& a, const Value& b) {
  const double* ra = a.real();
  const double* rb = b.real();
  if ((ra != nullptr && std::isnan(*ra)) || (rb != nullptr && std::isnan(*rb))) return std::nullopt;
  if (ra != nullptr && std::isinf(*ra)) return *ra < 0 ? -1 : 1;
  if (rb != nullptr && std::isinf(*rb)) return *rb < 0 ? 1 : -1;
  const auto da = big_digits(a), db = big_digits(b);
  if (!db) return a.big()->negative() ? -1 : 1;
  if (!da) return b.big()->negative() ? 1 : -1;
  const bool negative = da->front() == '-';
  if (negative != (db->front() == '-')) return negative ? -1 : 1;
  const int longer =
      da->size() == db->size() ? da->compare(*db) : (da->size() < db->size() ? -1 : 1);
  const int sign = longer == 0 ? 0 : (longer < 0 ? -1 : 1);
  return negative ? -sign : sign;
}

}  // namespace

std::optional<std::string> big_digits(const Value& value) {
  if (const BigInteger* big = value.big()) return big->digits;
  if (const auto integer = value.integer()) return std::to_string(*integer);
  const double* real = value.real();
  if (real == nullptr || !std::isfinite(*real) || std::abs(*real) < kInt64Limit) {
    return std::nullopt;
  }
  return fmt::format("{:.0f}", *real);  // every float of this size is whole, and printed exactly
}

std::optional<int> compare_numbers(const Value& a, const Value& b) {
  if (a.big() != nullptr || b.big() != nullptr) return compare_big(a, b);
  const auto ia = a.integer(), ib = b.integer();
  if (ia && ib) return *ia < *ib ? -1 : (*ia > *ib ? 1 : 0);
  if (ia) return compare_exact(*ia, *b.real());
  if (ib) {
    const auto turned = compare_exact(*ib, *a.real());
    return turned ? std::optional(-*turned) : std::nullopt;
  }
  const double x = *a.real(), y = *b.real();
  if (std::isnan(x) || std::isnan(y)) return std::nullopt;
  return x < y ? -1 : (x > y ? 1 : 0);
}

Value integer_of(std::string_view digits) {
  int64_t value = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (parsed.ec == std::errc()) return Value(value);
  const std::string_view sign = digits.substr(0, digits.front() == '-' ? 1 : 0);
  digits.remove_prefix(std::min(digits.find_first_not_of("-0"), digits.size()));
  return Value(BigInteger{std::string(sign) + std::string(digits)});
}

std::optional<Value> whole_part(double value) {
  if (!std::isfinite(value)) return std::nullopt;
  if (std::abs(value) < kInt64Limit) return Value(static_cast<int64_t>(value));
  return integer_of(fmt::format("{:.0f}", value));
}

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  // Shortest digits that read back the same, then laid out as repr does: scientific below 1e-4
  // and from 1e16 on.
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  const std::string_view text(buffer, static_cast<size_t>(end.ptr - buffer));
  const size_t e = text.find('e');
  int exponent = 0;
  const size_t sign = text[e + 1] == '+' ? e + 2 : e + 1;
  std::from_chars(text.data() + sign, text.data() + text.size(), exponent);
  if (exponent < -4 || exponent >= 16) {
    return fmt::format("{}e{}{:02}", text.substr(0, e), exponent < 0 ? '-' : '+',
                       std::abs(exponent));
  }
  const auto fixed = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed);
  std::string out(buffer, fixed.ptr);
  if (out.find('.') == std::string::npos) out += ".0";
  return out;
}

}  // namespace chimera::jinja
