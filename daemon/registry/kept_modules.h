// KeptModules: what a plan loaded and probed, kept for the apply that is likely to follow.
//
// It counts in the account of memory like any other module, and gives way: to a load that finds no
// room, to the next plan, to a change of the modules in use, to a revocation, and after a while.
//
// A revocation also holds for plans that are under way: what was revoked since a plan began is not
// kept by it, whichever of the two was asked for first.
//
// Thread safety: all methods from any thread. Modules are destroyed without the mutex held.
#pragma once

#include <chrono>
#include <list>
#include <memory>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/threads/mutex.h"
#include "experts/kinds/module.h"

namespace chimera {

class KeptModules {
 public:
  using Modules = std::vector<std::shared_ptr<const Module>>;

  /// A plan under way, for as long as it lives. Outlived by the KeptModules.
  class Plan {
   public:
    explicit Plan(KeptModules* kept);
    ~Plan();
    Plan(const Plan&) = delete;
    Plan& operator=(const Plan&) = delete;

    /// KeptModules::keep(), but for what was revoked since this began.
    void keep(Modules modules, std::chrono::milliseconds time);

   private:
    KeptModules* const kept_;
    std::list<std::set<std::string>>::iterator revoked_;  // into kept_->plans_
  };

  KeptModules() = default;
  ~KeptModules();
  KeptModules(const KeptModules&) = delete;
  KeptModules& operator=(const KeptModules&) = delete;

  /// In the place of what was kept before, for so long.
  void keep(Modules modules, std::chrono::milliseconds time) EXCLUDES(mutex_);
  /// Lets go of all, and waits for what another thread is letting go of; false when there was
  /// nothing of either.
  bool let_go() EXCLUDES(mutex_);
  /// Lets go of those of that name, now and when the plans that are under way end.
  void revoke(const std::string& name) EXCLUDES(mutex_);
  /// As let_go(), on another thread: for who must not wait until they are destroyed.
  void let_go_soon() EXCLUDES(mutex_);

 private:
  using Clock = std::chrono::steady_clock;

  void run();
  /// What keep() does; gives what has to be destroyed.
  Modules put(Modules modules, std::chrono::milliseconds time) REQUIRES(mutex_);
  /// Takes all of them out, to be given to destroy().
  Modules take() REQUIRES(mutex_);
  void destroy(Modules modules) EXCLUDES(mutex_);

  Mutex mutex_;
  CondVar changed_;
  Modules modules_ GUARDED_BY(mutex_);
  int leaving_ GUARDED_BY(mutex_) = 0;  // destroy() of what was taken out is to come, or runs
  std::list<std::set<std::string>> plans_ GUARDED_BY(mutex_);  // what was revoked since each began
  Clock::time_point until_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_ GUARDED_BY(mutex_);  // since the first keep()
};

}  // namespace chimera
