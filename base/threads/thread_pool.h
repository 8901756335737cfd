// The compute pool: a fixed set of threads that split one loop at a time.
//
// Work is handed over by spinning for a short while before sleeping: a decode step of a small
// model lasts about a millisecond and a futex wake costs 2-30 us, so between layers the workers
// stay hot; an idle pool sleeps and uses no CPU.
//
// Thread safety: parallel_for may be called from one thread at a time (the pool's owner).
#pragma once

#include <cstdint>
#include <memory>
#include <type_traits>

namespace chimera {

class ThreadPool {
 public:
  /// `threads` counts the calling thread: 1 creates no threads at all.
  explicit ThreadPool(int threads);
  ~ThreadPool();
  ThreadPool(const ThreadPool&) = delete;
  ThreadPool& operator=(const ThreadPool&) = delete;

  int threads() const { return threads_; }

  /// Calls body(begin, end) over disjoint ranges that cover [0, count), each at most `grain` long,
  /// on the pool's threads and the caller; returns when all are done. `body` must not throw and
  /// must not call parallel_for.
  template <class Body>
  void parallel_for(int64_t count, int64_t grain, Body&& body) {
    if (count <= 0) return;
    using B = std::remove_reference_t<Body>;
    run(
        count, grain < 1 ? 1 : grain,
        [](void* b, int64_t begin, int64_t end) { (*static_cast<B*>(b))(begin, end); },
        const_cast<void*>(static_cast<const void*>(&body)));
  }

 private:
  using Invoke = void (*)(void* body, int64_t begin, int64_t end);
  void run(int64_t count, int64_t grain, Invoke invoke, void* body);

  struct Impl;
  std::unique_ptr<Impl> impl_;
  int threads_;
};

/// `threads: auto`: the CPUs this process may run on (affinity and cgroup quota respected).
int auto_threads();

}  // namespace chimera
