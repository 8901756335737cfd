// A thread that works off a bounded queue of requests, so that the IO thread never waits.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "base/threads/mutex.h"
#include "daemon/server/answers/live.h"

namespace chimera {

class Worker {
 public:
  /// `name` is the thread's, at most 15 bytes. More than `max_waiting` tasks are refused.
  Worker(std::string name, size_t max_waiting);
  /// stop()
  ~Worker();

  /// Runs `task` later; when the queue is full or stopped, `live` ends with an error instead.
  void post(std::shared_ptr<Live> live, std::function<void()> task);
  /// Waits for the running task; those not begun end with `unavailable`.
  void stop();

 private:
  struct Task {
    std::shared_ptr<Live> live;
    std::function<void()> run;
  };
  void work();

  const std::string name_;
  const size_t max_waiting_;
  Mutex mutex_;
  CondVar changed_;
  std::deque<Task> waiting_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace chimera
