// Loops of loading on all CPUs.
//
// Thread safety: from any thread; blocking.
#pragma once

#include <algorithm>
#include <atomic>
#include <cstdint>
#include <exception>
#include <new>
#include <system_error>
#include <thread>
#include <vector>

#include "base/status.h"
#include "base/threads/background.h"
#include "base/threads/progress.h"
#include "base/threads/thread_pool.h"

namespace chimera {

// More threads than memory channels do not load faster.
inline constexpr int kMostLoaders = 16;

/// Runs `body(i)` for i in [0, n) on the CPUs this process may use; returns the first error by i,
/// resource_exhausted for one that ran out of memory, internal for another exception. Loading is
/// bound by memory, and one core does not saturate it. The threads that help give way as the caller
/// does (background.h), and what they do counts as its progress (progress.h).
template <class Body>
Status for_each_parallel(int64_t n, const Body& body) {
  std::atomic<int64_t> next{0};
  std::vector<Status> results(static_cast<size_t>(n));
  const auto work = [&] {
    for (int64_t i = next++; i < n; i = next++) {
      Status& result = results[static_cast<size_t>(i)];
      try {
        result = body(i);
      } catch (const std::bad_alloc&) {
        result = {Code::kResourceExhausted, "out of memory", "Free memory and retry"};
      } catch (const std::exception& e) {  // on a helper it would end the process
        result = {Code::kInternal, e.what()};
      }
    }
  };
  std::vector<std::jthread> threads;
  const int64_t helpers = std::min<int64_t>(n, std::min(auto_threads(), kMostLoaders)) - 1;
  try {
    for (int64_t t = 0; t < helpers; ++t)
      threads.emplace_back([&work, helper = BackgroundHelper(), progress = current_progress()] {
        const BackgroundScope scope = helper.scope();
        const ProgressScope counted(progress);
        work();
      });
  } catch (const std::system_error&) {
    // Fewer threads do it too.
  }
  work();
  threads.clear();  // joins
  for (const Status& status : results) {
    if (!status.ok()) return status;
  }
  return {};
}

}  // namespace chimera
