// Exact arithmetic on integers of any size, with Python's rules.
//
// Thread safety: free functions, from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string_view>

#include "text/template/value/value.h"

namespace chimera::jinja {

/// Digits that an integer may have which is computed or spelled out: as many as Python reads and
/// prints (sys.int_info.default_max_str_digits).
inline constexpr size_t kMaxDigits = 4300;

enum class IntegerOp : uint8_t { kAdd, kSubtract, kMultiply, kFloorDivide, kModulo, kPower };

// REQUIRES for all of them: the values are integers, of 64 bits or larger.

/// nullopt when an operand or the result has more than kMaxDigits. Quotients are rounded down and
/// remainders have the sign of the divisor. REQUIRES: no division by 0, no negative exponent.
std::optional<Value> exact(IntegerOp op, const Value& a, const Value& b);
/// The float nearest to a / b; nullopt when none is large enough, or as above. REQUIRES: b != 0.
std::optional<double> true_quotient(const Value& a, const Value& b);
/// `a` rounded to a multiple of 10^zeros, halves to the even one; nullopt as for exact().
std::optional<Value> rounded_to_zeros(const Value& a, uint64_t zeros);
/// The float nearest to the integer; nullopt when none is large enough.
std::optional<double> nearest_float(const Value& integer);

/// The integer that `digits` of a base from 2 to 16 say; nullopt when there are none or more than
/// kMaxDigits decimal ones.
std::optional<Value> integer_of(std::string_view digits, int base);

}  // namespace chimera::jinja
