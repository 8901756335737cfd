// KeptModules: what a plan loaded and probed, kept for the apply that is likely to follow.
//
// It counts in the account of memory like any other module, and gives way: to a load that finds no
// room, to the next plan, to a change of the modules in use, to a revocation, and after a while.
//
// Thread safety: all methods from any thread. Modules are destroyed without the mutex held.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <thread>
#include <vector>

#include "base/threads/mutex.h"
#include "experts/kinds/module.h"

namespace chimera {

class KeptModules {
 public:
  using Modules = std::vector<std::shared_ptr<const Module>>;

  KeptModules() = default;
  ~KeptModules();
  KeptModules(const KeptModules&) = delete;
  KeptModules& operator=(const KeptModules&) = delete;

  /// In the place of what was kept before, for so long.
  void keep(Modules modules, std::chrono::milliseconds time) EXCLUDES(mutex_);
  /// Lets go of all; false when nothing was kept.
  bool let_go() EXCLUDES(mutex_);
  /// Lets go of those of that name.
  void let_go(const std::string& name) EXCLUDES(mutex_);
  /// As let_go(), on another thread: for who must not wait until they are destroyed.
  void let_go_soon() EXCLUDES(mutex_);

 private:
  using Clock = std::chrono::steady_clock;
  void run();

  Mutex mutex_;
  CondVar changed_;
  Modules modules_ GUARDED_BY(mutex_);
  Clock::time_point until_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_ GUARDED_BY(mutex_);  // since the first keep()
};

}  // namespace chimera
