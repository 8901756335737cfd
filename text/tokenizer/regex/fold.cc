#include "text/tokenizer/regex/fold.h"

#include <utf8proc.h>

#include <array>
#include <set>
#include <utility>

namespace chimera::tokenizer {
namespace {

// The folding of `c`; only the first two characters matter here.
struct Folding {
  int length = 0;
  std::array<utf8proc_int32_t, 8> characters{};
};

Folding fold(uint32_t c) {
  Folding f;
  int boundary = 0;
  f.length = static_cast<int>(utf8proc_decompose_char(
      static_cast<utf8proc_int32_t>(c), f.characters.data(),
      static_cast<utf8proc_ssize_t>(f.characters.size()), UTF8PROC_CASEFOLD, &boundary));
  return f;
}

// The first two characters of every folding to several. All such characters are in the first two
// planes.
const std::set<std::pair<utf8proc_int32_t, utf8proc_int32_t>>& several() {
  static const auto pairs = [] {
    std::set<std::pair<utf8proc_int32_t, utf8proc_int32_t>> out;
    for (uint32_t c = 0; c < 0x20000; ++c) {
      const Folding f = fold(c);
      if (f.length > 1) out.emplace(f.characters[0], f.characters[1]);
    }
    return out;
  }();
  return pairs;
}

}  // namespace

bool folds_to_several(uint32_t c) { return fold(c).length > 1; }

bool is_folding_of_one(uint32_t a, uint32_t b) {
  const Folding first = fold(a);
  const Folding second = fold(b);
  return first.length == 1 && second.length == 1 &&
         several().contains({first.characters[0], second.characters[0]});
}

}  // namespace chimera::tokenizer
