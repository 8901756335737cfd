#include "daemon/registry/kept_modules.h"

#include <pthread.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace chimera {

KeptModules::~KeptModules() {
  std::thread thread;
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    thread.swap(thread_);
  }
  changed_.notify_all();
  if (thread.joinable()) thread.join();
}

void KeptModules::keep(Modules modules, std::chrono::milliseconds time) {
  {
    const MutexLock lock(mutex_);
    modules_.swap(modules);
    until_ = Clock::now() + time;
    if (!modules_.empty() && !thread_.joinable()) thread_ = std::thread([this] { run(); });
  }
  changed_.notify_all();
}

bool KeptModules::let_go() {
  Modules gone;
  const MutexLock lock(mutex_);
  gone.swap(modules_);
  return !gone.empty();
}

void KeptModules::let_go(const std::string& name) {
  Modules gone;
  const MutexLock lock(mutex_);
  const auto named = std::stable_partition(modules_.begin(), modules_.end(),
                                           [&](const auto& m) { return m->name() != name; });
  gone.assign(std::make_move_iterator(named), std::make_move_iterator(modules_.end()));
  modules_.erase(named, modules_.end());
}

void KeptModules::let_go_soon() {
  {
    const MutexLock lock(mutex_);
    until_ = Clock::now();
  }
  changed_.notify_all();
}

void KeptModules::run() {
  pthread_setname_np(pthread_self(), "chimera-kept");
  for (;;) {
    Modules gone;
    const MutexLock lock(mutex_);
    changed_.wait(mutex_, [this]() REQUIRES(mutex_) { return stopping_ || !modules_.empty(); });
    if (stopping_) return;
    const Clock::time_point until = until_;
    const bool other = changed_.wait_for(mutex_, until - Clock::now(), [&]() REQUIRES(mutex_) {
      return stopping_ || modules_.empty() || until_ != until;
    });
    if (other) continue;
    gone.swap(modules_);
  }
}

}  // namespace chimera
