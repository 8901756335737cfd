#include "base/threads/worker_pool.h"

namespace chimera {

WorkerPool::WorkerPool(int threads) {
  for (int i = 0; i < threads; ++i) threads_.emplace_back([this] { loop(); });
}

void WorkerPool::stop() {
  {
    const MutexLock guard(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  for (std::thread& thread : threads_) thread.join();
  threads_.clear();
}

Status WorkerPool::stopped() { return {Code::kUnavailable, "the daemon is stopping"}; }

Status WorkerPool::enqueue(std::function<void(bool)> job) {
  {
    const MutexLock guard(mutex_);
    if (stopping_) return stopped();
    if (jobs_.size() >= kMaxWaiting) {
      return {Code::kResourceExhausted, "found 256 changes waiting (expected fewer)",
              "Try again when they are done"};
    }
    jobs_.push_back(std::move(job));
  }
  wake_.notify_one();
  return {};
}

void WorkerPool::loop() {
  for (;;) {
    std::function<void(bool)> job;
    bool stopping = false;
    {
      const MutexLock lock(mutex_);
      wake_.wait(mutex_, [this]() REQUIRES(mutex_) { return stopping_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
      stopping = stopping_;
    }
    job(stopping);
  }
}

}  // namespace chimera
