#include "daemon/serial_worker.h"

#include <sys/resource.h>
#include <unistd.h>

#include "backbone/background.h"

namespace chimera {

SerialWorker::SerialWorker() : thread_([this] { loop(); }) {}

void SerialWorker::stop() {
  {
    const std::lock_guard guard(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

Status SerialWorker::stopped() { return {Code::kUnavailable, "the daemon is stopping"}; }

Status SerialWorker::enqueue(std::function<void(bool)> job) {
  {
    const std::lock_guard guard(mutex_);
    if (stopping_) return stopped();
    if (jobs_.size() >= kMaxWaiting) {
      return {Code::kResourceExhausted, "found 256 changes waiting (expected fewer)",
              "Try again when they are done"};
    }
    jobs_.push_back(std::move(job));
  }
  wake_.notify_one();
  return {};
}

void SerialWorker::loop() {
  // Loading must not take CPU time from the streams, yet several changes per second must get
  // through beside a busy engine: nice 10 is a tenth of a normal thread's weight, and jobs give way
  // in between. On Linux the nice value is the thread's own.
  setpriority(PRIO_PROCESS, static_cast<id_t>(gettid()), 10);
  const BackgroundScope scope;
  for (;;) {
    std::function<void(bool)> job;
    bool stopping = false;
    {
      std::unique_lock lock(mutex_);
      wake_.wait(lock, [this] { return stopping_ || !jobs_.empty(); });
      if (jobs_.empty()) return;
      job = std::move(jobs_.front());
      jobs_.pop_front();
      stopping = stopping_;
    }
    job(stopping);
  }
}

}  // namespace chimera
