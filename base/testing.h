// For tests: what this process uses of the machine. Header only; no product code includes it.
//
// Thread safety: any thread may call it.
#pragma once

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

}  // namespace chimera::testing_support
