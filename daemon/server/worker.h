// A thread that works off a bounded queue of requests, so that the IO thread never waits.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <condition_variable>
#include <cstddef>
#include <deque>
#include <functional>
#include <memory>
#include <mutex>
#include <string>
#include <thread>

#include "daemon/server/live.h"

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
  std::mutex mutex_;
  std::condition_variable changed_;
  std::deque<Task> waiting_;  // guarded by mutex_
  bool stopping_ = false;     // guarded by mutex_
  std::thread thread_;
};

}  // namespace chimera
