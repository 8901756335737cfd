// Hand-over protocol: `ticket_` holds (job number << 32 | chunks not yet claimed). A thread claims
// a chunk by decrementing it with compare-and-swap, so a late thread can never claim a chunk of a
// job it did not see; the job's fields are read only after a successful claim, and the owner does
// not touch them again until every claimed chunk has been counted off `unfinished_`.
#include "base/threads/thread_pool.h"

#include <algorithm>
#include <atomic>
#include <chrono>
#include <thread>
#include <vector>

#include "base/threads/background.h"
#include "base/threads/mutex.h"

namespace chimera {
namespace {

using Clock = std::chrono::steady_clock;
using std::chrono::microseconds;
using std::chrono::nanoseconds;

// A decode step hands over every 5-50 us; 80 us of spinning bridges the gaps without keeping an
// idle pool hot. It ends early when the kernel gave the CPU to another process meanwhile.
constexpr nanoseconds kSpin = microseconds(80);
constexpr nanoseconds kInterrupted = microseconds(20);
constexpr int kPausesPerClockRead = 32;
// Every 8 us or so a spinning worker lets another process have its CPU if one waits for it: the
// scheduler would leave it waiting for the whole budget.
constexpr int kClockReadsPerYield = 4;
// The owner, which waits for a chunk that another thread claimed: that one may have lost its CPU.
constexpr int kPausesBeforeYield = 200;

void pause() {
#if defined(__x86_64__) || defined(__i386__)
  __builtin_ia32_pause();
#else
  std::this_thread::yield();
#endif
}

constexpr uint64_t job_of(uint64_t ticket) { return ticket >> 32; }
constexpr uint64_t left_of(uint64_t ticket) { return ticket & 0xffffffffu; }

}  // namespace

struct ThreadPool::Impl {
  struct Job {
    int64_t count = 0;
    int64_t grain = 1;
    int64_t chunks = 0;
    Invoke invoke = nullptr;
    void* body = nullptr;
  };

  alignas(64) std::atomic<uint64_t> ticket_{0};
  alignas(64) std::atomic<int64_t> unfinished_{0};
  alignas(64) std::atomic<int> sleepers_{0};
  std::atomic<bool> stop_{false};
  Job job_;
  Mutex mutex_;  // of sleeping and waking; guards no data
  CondVar wake_;
  std::vector<std::thread> workers_;

  void publish(const Job& job) {
    job_ = job;
    unfinished_.store(job.chunks, std::memory_order_relaxed);
    const uint64_t number = job_of(ticket_.load(std::memory_order_relaxed)) + 1;
    ticket_.store(number << 32 | static_cast<uint64_t>(job.chunks), std::memory_order_seq_cst);
    wake_sleepers();
  }

  void wake_sleepers() {
    if (sleepers_.load(std::memory_order_seq_cst) == 0) return;
    // Taking the mutex closes the gap between a worker's last look and its wait.
    { const MutexLock lock(mutex_); }
    wake_.notify_all();
  }

  /// Runs chunks of the current job until none is left to claim.
  void work() {
    uint64_t seen = ticket_.load(std::memory_order_acquire);
    while (left_of(seen) > 0) {
      if (!ticket_.compare_exchange_weak(seen, seen - 1, std::memory_order_acq_rel,
                                         std::memory_order_acquire))
        continue;
      const int64_t index = job_.chunks - static_cast<int64_t>(left_of(seen));
      const int64_t begin = index * job_.grain;
      job_.invoke(job_.body, begin, std::min(begin + job_.grain, job_.count));
      unfinished_.fetch_sub(1, std::memory_order_acq_rel);
      seen = ticket_.load(std::memory_order_acquire);
    }
  }

  bool has_work() const {
    return left_of(ticket_.load(std::memory_order_seq_cst)) > 0 ||
           stop_.load(std::memory_order_seq_cst);
  }

  /// As publish(), work() and wait_finished(), of an owner that gives way: its helpers do as well,
  /// each in one scope for the whole loop, as bursts go on from chunk to chunk.
  void run_in_background(const Job& job, int threads) {
    const BackgroundHelper helper;
    std::atomic<int64_t> next{0};
    auto share = [&] {
      const BackgroundScope scope = helper.scope();
      for (int64_t i = next++; i < job.chunks; i = next++) {
        job.invoke(job.body, i * job.grain, std::min((i + 1) * job.grain, job.count));
        give_way();
      }
    };
    const int64_t shares = std::min<int64_t>(threads, job.chunks);
    const Invoke invoke = [](void* body, int64_t, int64_t) {
      (*static_cast<decltype(share)*>(body))();
    };
    publish({shares, 1, shares, invoke, &share});
    work();
    wait_finished();
  }

  /// Spins for a while. True when there is work.
  bool spin() const {
    const Clock::time_point start = Clock::now();
    Clock::time_point last = start;
    for (int read = 1;; ++read) {
      for (int i = 0; i < kPausesPerClockRead; ++i) {
        if (has_work()) return true;
        pause();
      }
      if (read % kClockReadsPerYield == 0) std::this_thread::yield();
      const Clock::time_point now = Clock::now();
      if (now - last > kInterrupted || now - start > kSpin) return false;
      last = now;
    }
  }

  void sleep() {
    const MutexLock lock(mutex_);
    sleepers_.fetch_add(1, std::memory_order_seq_cst);
    wake_.wait(mutex_, [this] { return has_work(); });
    sleepers_.fetch_sub(1, std::memory_order_seq_cst);
  }

  void worker_loop() {
    while (!stop_.load(std::memory_order_acquire)) {
      work();
      if (!spin()) sleep();
    }
  }

  /// The caller has no chunk left; others may still run theirs, or wait for a CPU to do so.
  void wait_finished() const {
    const auto finished = [this] { return unfinished_.load(std::memory_order_acquire) == 0; };
    for (int i = 0; i < kPausesBeforeYield; ++i) {
      if (finished()) return;
      pause();
    }
    while (!finished()) std::this_thread::yield();
  }
};

ThreadPool::ThreadPool(int threads)
    : impl_(std::make_unique<Impl>()), threads_(std::max(threads, 1)) {
  for (int i = 1; i < threads_; ++i)
    impl_->workers_.emplace_back([impl = impl_.get()] { impl->worker_loop(); });
}

ThreadPool::~ThreadPool() {
  impl_->stop_.store(true, std::memory_order_seq_cst);
  impl_->wake_sleepers();
  for (std::thread& worker : impl_->workers_) worker.join();
}

void ThreadPool::run(int64_t count, int64_t grain, Invoke invoke, void* body) {
  // The chunk number must fit the lower half of the ticket.
  const int64_t most_chunks = int64_t{1} << 31;
  grain = std::max(grain, (count + most_chunks - 1) / most_chunks);
  const int64_t chunks = (count + grain - 1) / grain;
  if (threads_ == 1 || chunks == 1) {
    for (int64_t begin = 0; begin < count; begin += grain) {
      invoke(body, begin, std::min(begin + grain, count));
      give_way();
    }
    return;
  }
  if (in_background())
    return impl_->run_in_background({count, grain, chunks, invoke, body}, threads_);
  impl_->publish({count, grain, chunks, invoke, body});
  impl_->work();
  impl_->wait_finished();
}

}  // namespace chimera
