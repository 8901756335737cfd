#include "base/threads/repeater.h"

#include <pthread.h>

namespace chimera {

void Repeater::stop() {
  std::thread thread;
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    thread.swap(thread_);
  }
  wake_.notify_all();
  if (thread.joinable()) thread.join();
}

void Repeater::begin() {
  {
    const MutexLock lock(mutex_);
    wanted_ = true;
    if (!thread_.joinable() && !stopping_) thread_ = std::thread([this] { run(); });
  }
  wake_.notify_all();
}

void Repeater::run() {
  pthread_setname_np(pthread_self(), name_.c_str());
  while (true) {
    {
      const MutexLock lock(mutex_);
      wake_.wait(mutex_, [this]() REQUIRES(mutex_) { return wanted_ || stopping_; });
      wake_.wait_for(mutex_, interval_, [this]() REQUIRES(mutex_) { return stopping_; });
      if (stopping_) return;
      wanted_ = false;
    }
    if (attempt_()) continue;
    const MutexLock lock(mutex_);
    wanted_ = true;
  }
}

}  // namespace chimera
