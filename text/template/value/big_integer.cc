#include "text/template/value/big_integer.h"

#include <algorithm>
#include <boost/multiprecision/cpp_int.hpp>
#include <charconv>
#include <cmath>
#include <limits>
#include <string>

namespace chimera::jinja {
namespace {

using Big = boost::multiprecision::cpp_int;

// More bits than any integer of kMaxDigits has: 3.33 a digit.
constexpr size_t kMaxBits = kMaxDigits * 10 / 3;

Big magnitude(const Big& value) { return value < 0 ? Big(-value) : value; }
size_t bits(const Big& value) { return value == 0 ? 0 : msb(magnitude(value)) + 1; }

/// Of a digit of up to base 16; 16 for what is none.
int digit_value(char digit) {
  if (digit >= '0' && digit <= '9') return digit - '0';
  const int letter = (digit | 0x20) - 'a';
  return letter >= 0 && letter < 6 ? letter + 10 : 16;
}

std::optional<Big> read(const Value& value) {
  if (const auto small = value.integer()) return Big(*small);
  const std::string& digits = value.big()->digits;
  if (digits.size() > kMaxDigits + 1) return std::nullopt;
  return Big(digits);
}

std::optional<Value> written(const Big& value) {
  if (bits(value) > kMaxBits) return std::nullopt;
  const std::string digits = value.str();
  if (digits.size() > kMaxDigits + (value < 0 ? 1 : 0)) return std::nullopt;
  return integer_of(digits);
}

Big floor_divided(const Big& a, const Big& b) {
  const Big quotient = a / b;
  const bool signs_differ = a.sign() * b.sign() < 0;
  return signs_differ && a % b != 0 ? quotient - 1 : quotient;
}

std::optional<Big> power(const Big& base, const Big& exponent) {
  if (exponent == 0) return Big(1);
  if (base == 0 || base == 1) return base;
  if (base == -1) return exponent % 2 == 0 ? Big(1) : base;
  // At least (bits - 1) bits of the base, `exponent` times.
  if (exponent > kMaxBits || (bits(base) - 1) * exponent.convert_to<size_t>() > kMaxBits)
    return std::nullopt;
  return pow(base, exponent.convert_to<unsigned>());
}

}  // namespace

std::optional<Value> exact(IntegerOp op, const Value& a, const Value& b) {
  const auto left = read(a), right = read(b);
  if (!left || !right) return std::nullopt;
  switch (op) {
    case IntegerOp::kAdd:
      return written(*left + *right);
    case IntegerOp::kSubtract:
      return written(*left - *right);
    case IntegerOp::kMultiply:
      return written(*left * *right);
    case IntegerOp::kFloorDivide:
      return written(floor_divided(*left, *right));
    case IntegerOp::kModulo:
      return written(*left - floor_divided(*left, *right) * *right);
    case IntegerOp::kPower: {
      const auto result = power(*left, *right);
      return result ? written(*result) : std::nullopt;
    }
  }
  return std::nullopt;
}

std::optional<double> true_quotient(const Value& a, const Value& b) {
  const auto left = read(a), right = read(b);
  if (!left || !right) return std::nullopt;
  if (*left == 0) return *right < 0 ? -0.0 : 0.0;
  const bool negative = (*left < 0) != (*right < 0);
  Big top = magnitude(*left), bottom = magnitude(*right);
  // The quotient with 63 or 64 bits, so that its conversion is the only rounding; a lowest bit that
  // is set says that something smaller is left, and no tie is mistaken for one.
  const int shift = 64 - (static_cast<int>(bits(top)) - static_cast<int>(bits(bottom)));
  if (shift > 0) {
    top <<= shift - 1;
  } else {
    bottom <<= 1 - shift;
  }
  auto quotient = Big(top / bottom).convert_to<uint64_t>();
  if (top % bottom != 0) quotient |= 1;
  const double scaled = std::ldexp(static_cast<double>(quotient), 1 - shift);
  if (std::isinf(scaled)) return std::nullopt;
  return negative ? -scaled : scaled;
}

std::optional<Value> rounded_to_zeros(const Value& a, uint64_t zeros) {
  const auto value = read(a);
  if (!value) return std::nullopt;
  if (zeros > kMaxDigits) return Value(int64_t{0});  // not even half of that
  const Big unit = pow(Big(10), static_cast<unsigned>(zeros));
  Big below = floor_divided(*value, unit);
  const Big twice = 2 * (*value - below * unit);
  if (twice > unit || (twice == unit && below % 2 != 0)) ++below;
  return written(below * unit);
}

std::optional<double> nearest_float(const Value& integer) {
  if (const auto small = integer.integer()) return static_cast<double>(*small);
  const std::string& digits = integer.big()->digits;
  double value = 0.0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  return parsed.ec == std::errc() ? std::optional(value) : std::nullopt;
}

std::optional<Value> integer_of(std::string_view digits, int base) {
  if (digits.empty()) return std::nullopt;
  const size_t zeros = std::min(digits.find_first_not_of('0'), digits.size());
  digits.remove_prefix(zeros);
  if (digits.size() > kMaxBits) return std::nullopt;
  if (base == 10) {
    if (digits.size() > kMaxDigits) return std::nullopt;
    return digits.empty() ? Value(int64_t{0}) : integer_of(digits);
  }
  Big value = 0;
  for (const char digit : digits) {
    if (digit_value(digit) >= base) return std::nullopt;
    value = value * base + digit_value(digit);
  }
  return written(value);
}

}  // namespace chimera::jinja
