#include "daemon/registry/kept_modules.h"

#include <pthread.h>

#include <algorithm>
#include <iterator>
#include <utility>

namespace chimera {

KeptModules::Plan::Plan(KeptModules* kept) : kept_(kept) {
  const MutexLock lock(kept_->mutex_);
  revoked_ = kept_->plans_.emplace(kept_->plans_.end());
}

KeptModules::Plan::~Plan() {
  const MutexLock lock(kept_->mutex_);
  kept_->plans_.erase(revoked_);
}

void KeptModules::Plan::keep(Modules modules, std::chrono::milliseconds time) {
  Modules gone;
  {
    // In one go: a revocation finds them either in the plan or among what is kept.
    const MutexLock lock(kept_->mutex_);
    const auto left = std::stable_partition(modules.begin(), modules.end(), [&](const auto& m) {
      return revoked_->count(m->name()) == 0;
    });
    Modules revoked(std::make_move_iterator(left), std::make_move_iterator(modules.end()));
    modules.erase(left, modules.end());
    gone = kept_->put(std::move(modules), time);
    gone.insert(gone.end(), std::make_move_iterator(revoked.begin()),
                std::make_move_iterator(revoked.end()));
  }
  kept_->destroy(std::move(gone));
}

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

KeptModules::Modules KeptModules::take() {
  ++leaving_;
  return std::exchange(modules_, {});
}

void KeptModules::destroy(Modules modules) {
  modules.clear();
  const MutexLock lock(mutex_);
  --leaving_;
  changed_.notify_all();
}

KeptModules::Modules KeptModules::put(Modules modules, std::chrono::milliseconds time) {
  Modules before = take();
  modules_ = std::move(modules);
  until_ = Clock::now() + time;
  if (!modules_.empty() && !thread_.joinable()) thread_ = std::thread([this] { run(); });
  return before;
}

void KeptModules::keep(Modules modules, std::chrono::milliseconds time) {
  Modules gone;
  {
    const MutexLock lock(mutex_);
    gone = put(std::move(modules), time);
  }
  destroy(std::move(gone));
}

bool KeptModules::let_go() {
  Modules gone;
  {
    const MutexLock lock(mutex_);
    if (modules_.empty() && leaving_ == 0) return false;
    gone = take();
  }
  destroy(std::move(gone));
  // A load that finds nothing here may be refused for what another one has made to go.
  const MutexLock lock(mutex_);
  changed_.wait(mutex_, [this]() REQUIRES(mutex_) { return leaving_ == 0; });
  return true;
}

void KeptModules::revoke(const std::string& name) {
  Modules gone;
  {
    const MutexLock lock(mutex_);
    for (std::set<std::string>& revoked : plans_) revoked.insert(name);
    gone = take();
    const auto named = std::stable_partition(gone.begin(), gone.end(),
                                             [&](const auto& m) { return m->name() == name; });
    modules_.assign(std::make_move_iterator(named), std::make_move_iterator(gone.end()));
    gone.erase(named, gone.end());
  }
  destroy(std::move(gone));
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
    {
      const MutexLock lock(mutex_);
      changed_.wait(mutex_, [this]() REQUIRES(mutex_) { return stopping_ || !modules_.empty(); });
      if (stopping_) return;
      const Clock::time_point until = until_;
      const bool other = changed_.wait_for(mutex_, until - Clock::now(), [&]() REQUIRES(mutex_) {
        return stopping_ || modules_.empty() || until_ != until;
      });
      if (other) continue;
      gone = take();
    }
    destroy(std::move(gone));
  }
}

}  // namespace chimera
