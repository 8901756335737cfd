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
    ++taken_;
  }
  wake_.notify_one();
}

void Reaper::flush() {
  const MutexLock lock(mutex_);
  // Streams that end keep bringing new ones: not until there is none, but until those are gone.
  const uint64_t before = taken_;
  released_.wait(mutex_, [this, before]() REQUIRES(mutex_) { return let_go_ >= before; });
}

void Reaper::run() {
  ReleasableMutexLock lock(mutex_);
  for (;;) {
    wake_.wait(mutex_, [this]() REQUIRES(mutex_) { return stop_ || !queue_.empty(); });
    if (queue_.empty()) return;
    std::vector<std::shared_ptr<const void>> batch;
    batch.swap(queue_);
    const uint64_t count = batch.size();
    lock.unlock();
    batch.clear();
    lock.lock();
    let_go_ += count;
    released_.notify_all();
  }
}

}  // namespace chimera
