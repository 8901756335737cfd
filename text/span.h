// A range of bytes of a text, shared by the template interpreter and the tokenizer.
//
// Thread safety: a value.
#pragma once

#include <cstddef>

namespace chimera {

/// Bytes [begin, end).
struct TextSpan {
  size_t begin = 0, end = 0;
  bool operator==(const TextSpan&) const = default;
};

}  // namespace chimera
