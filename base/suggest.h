// "Did you mean …?"
//
// Thread safety: pure functions.
#pragma once

#include <span>
#include <string_view>

namespace chimera {

/// The candidate most like `word`, when it is near enough to be a slip of typing (at most a third
/// of its letters, or two, are other ones); else "".
std::string_view nearest(std::string_view word, std::span<const std::string_view> candidates);

}  // namespace chimera
