// Loops of loading on all CPUs.
//
// Thread safety: from any thread; blocking.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <thread>
#include <vector>

#include "base/status.h"
#include "base/threads/thread_pool.h"

namespace chimera {

// More threads than memory channels do not load faster.
inline constexpr int kMostLoaders = 16;

/// Runs `body(i)` for i in [0, n) on the CPUs this process may use; returns the first error by i.
/// Loading is bound by memory, and one core does not saturate it.
template <class Body>
Status for_each_parallel(int64_t n, const Body& body) {
  std::atomic<int64_t> next{0};
  std::vector<Status> results(static_cast<size_t>(n));
  const auto work = [&] {
    for (int64_t i = next++; i < n; i = next++) results[static_cast<size_t>(i)] = body(i);
  };
  std::vector<std::jthread> threads;
  const int64_t helpers = std::min<int64_t>(n, std::min(auto_threads(), kMostLoaders)) - 1;
  for (int64_t t = 0; t < helpers; ++t) threads.emplace_back(work);
  work();
  threads.clear();  // joins
  for (const Status& status : results) {
    if (!status.ok()) return status;
  }
  return {};
}

}  // namespace chimera
