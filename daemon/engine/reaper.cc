#include "daemon/engine/reaper.h"

#include <utility>

namespace chimera {

Reaper::Reaper() : thread_([this] { run(); }) {}

Reaper::~Reaper() {
  {
    const MutexLock lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Reaper::take(std::shared_ptr<const void> reference) {
  if (!reference) return;
  {
    const MutexLock lock(mutex_);
    queue_.push_back(std::move(reference));
  }
  wake_.notify_one();
}

void Reaper::flush() {
  const MutexLock lock(mutex_);
  idle_.wait(mutex_, [this]() REQUIRES(mutex_) { return queue_.empty() && !busy_; });
}

void Reaper::run() {
  ReleasableMutexLock lock(mutex_);
  for (;;) {
    wake_.wait(mutex_, [this]() REQUIRES(mutex_) { return stop_ || !queue_.empty(); });
    if (queue_.empty()) return;
    std::vector<std::shared_ptr<const void>> batch;
    batch.swap(queue_);
    busy_ = true;
    lock.unlock();
    batch.clear();
    lock.lock();
    busy_ = false;
    idle_.notify_all();
  }
}

}  // namespace chimera
