// Reaper: lets go of references off the engine thread.
//
// The last reference to a routing table may free the weights of a whole module, which takes
// milliseconds; the streams of a step must not wait for it.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <thread>
#include <vector>

#include "base/threads/mutex.h"

namespace chimera {

class Reaper {
 public:
  Reaper();
  ~Reaper();  // lets go of everything first

  /// Takes over a reference; never blocks on its release.
  void take(std::shared_ptr<const void> reference);
  /// Returns once everything taken before this call has been let go.
  void flush();

 private:
  void run();

  Mutex mutex_;
  CondVar wake_, released_;
  std::vector<std::shared_ptr<const void>> queue_ GUARDED_BY(mutex_);
  uint64_t taken_ GUARDED_BY(mutex_) = 0;   // references so far
  uint64_t let_go_ GUARDED_BY(mutex_) = 0;  // of these, in their order
  bool stop_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace chimera
