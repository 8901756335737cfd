// "Did you mean …?"
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <span>
#include <string_view>

namespace chimera {

/// Changes of one byte that turn `a` into `b` (Levenshtein); costs the product of their
/// lengths.
size_t edit_distance(std::string_view a, std::string_view b);

/// The candidate most like `word`, when it is near enough to be a slip of typing (at most a third
/// of its letters, or two, are other ones); else "".
std::string_view nearest(std::string_view word, std::span<const std::string_view> candidates);

}  // namespace chimera
