// The declared range of a field, by its name.
//
// Thread safety: constants.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

namespace chimera {

struct IntRange {
  std::string_view name;
  int64_t min, max;
};
struct RealRange {
  std::string_view name;
  double min, max;
  bool min_open = false;  // min itself is refused
};
/// Length of a string in bytes.
struct TextRange {
  std::string_view name;
  size_t min, max;
};

}  // namespace chimera
