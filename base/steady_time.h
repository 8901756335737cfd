// Points of the steady clock as they travel between programs and into plugins: nanoseconds, 0 for
// none. (CLOCK_MONOTONIC: the same in every process of a machine.)
//
// Thread safety: free functions, from any thread.
#pragma once

#include <chrono>
#include <cstdint>

namespace chimera {

inline uint64_t steady_ns(std::chrono::steady_clock::time_point time) {
  return static_cast<uint64_t>(
      std::chrono::duration_cast<std::chrono::nanoseconds>(time.time_since_epoch()).count());
}
inline uint64_t steady_now_ns() { return steady_ns(std::chrono::steady_clock::now()); }
inline std::chrono::steady_clock::time_point steady_time(uint64_t ns) {
  return std::chrono::steady_clock::time_point(std::chrono::nanoseconds(ns));
}

}  // namespace chimera
