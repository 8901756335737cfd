// Looks after the files that the daemon has mapped: one that somebody writes to makes other results
// under the same digest. It says so in its log, once for each file; `info` lists them, and no
// receipt is signed any more (base/io/mapped_changes.h).
//
// Thread safety: made and destroyed by one thread; looks on a thread of its own.
#pragma once

#include <set>
#include <string>
#include <thread>

#include "base/threads/mutex.h"

namespace chimera {

class MappingWatch {
 public:
  MappingWatch();
  ~MappingWatch();
  MappingWatch(const MappingWatch&) = delete;
  MappingWatch& operator=(const MappingWatch&) = delete;

 private:
  void run();
  void look(bool by_content);

  Mutex mutex_;
  CondVar stopped_;
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::set<std::string> told_;  // its thread's
  std::thread thread_;
};

}  // namespace chimera
