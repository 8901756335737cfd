// Numbers of templates among themselves: of 64 bits, larger, floats. Internal to this room.
//
// Thread safety: pure functions.
#pragma once

#include <optional>
#include <string>

#include "text/template/value/value.h"

namespace chimera::jinja {

/// The digits of a number that is whole; nullopt for others and for floats of the 64-bit range.
std::optional<std::string> big_digits(const Value& value);
/// Python's order of two numbers, exact whatever they are: -1, 0, 1; nullopt where one is NaN.
/// REQUIRES: both are numbers.
std::optional<int> compare_numbers(const Value& a, const Value& b);

}  // namespace chimera::jinja
