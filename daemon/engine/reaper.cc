#include "daemon/engine/reaper.h"

#include <utility>

namespace chimera {

Reaper::Reaper() : thread_([this] { run(); }) {}

Reaper::~Reaper() {
  {
    const std::lock_guard lock(mutex_);
    stop_ = true;
  }
  wake_.notify_one();
  thread_.join();
}

void Reaper::take(std::shared_ptr<const void> reference) {
  if (!reference) return;
  {
    const std::lock_guard lock(mutex_);
    queue_.push_back(std::move(reference));
  }
  wake_.notify_one();
}

void Reaper::flush() {
  std::unique_lock lock(mutex_);
  idle_.wait(lock, [this] { return queue_.empty() && !busy_; });
}

void Reaper::run() {
  std::unique_lock lock(mutex_);
  for (;;) {
    wake_.wait(lock, [this] { return stop_ || !queue_.empty(); });
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
