// For tests: what this process uses of the machine. Header only; no product code includes it.
//
// Thread safety: any thread may call it.
#pragma once

#include <algorithm>
#include <cstdint>
#include <fstream>
#include <string>
#include <utility>

namespace chimera::testing_support {

/// Resident memory in KiB, counted page by page. VmRSS in /proc/self/status is kept per CPU and
/// summed up lazily: off by 128 KiB per CPU and more, which a bound of 1 MiB does not bear.
inline int64_t resident_kib() {
  for (const auto& [file, key] :
       {std::pair{"/proc/self/smaps_rollup", "Rss:"}, std::pair{"/proc/self/status", "VmRSS:"}}) {
    std::ifstream in(file);
    for (std::string word; in >> word;) {
      int64_t kib = 0;
      if (word == key && in >> kib) return kib;
    }
  }
  return -1;
}

/// The growth of resident memory in KiB over a call of `round`: the first of four calls that grows
/// by less than `bound`, else the least of them. A leak grows in every one; what an allocator's
/// arena, a late thread or the page cache of a mapping takes or gives back once does not.
template <typename Round>
int64_t growth_kib(int64_t bound, Round&& round) {
  int64_t least = 0;
  for (int i = 0; i < 4; ++i) {
    const int64_t before = resident_kib();
    round();
    const int64_t growth = resident_kib() - before;
    least = i == 0 ? growth : std::min(least, growth);
    if (growth < bound) break;
  }
  return least;
}

}  // namespace chimera::testing_support
