// Reaper: lets go of references off the engine thread.
//
// The last reference to a routing table may free the weights of a whole module, which takes
// milliseconds; the streams of a step must not wait for it.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <condition_variable>
#include <memory>
#include <mutex>
#include <thread>
#include <vector>

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

  std::mutex mutex_;
  std::condition_variable wake_, idle_;
  std::vector<std::shared_ptr<const void>> queue_;
  bool busy_ = false;
  bool stop_ = false;
  std::thread thread_;
};

}  // namespace chimera
