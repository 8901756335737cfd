#include "daemon/server/worker.h"

#include <fmt/format.h>
#include <pthread.h>

#include <utility>

namespace chimera {

Worker::Worker(std::string name, size_t max_waiting)
    : name_(std::move(name)), max_waiting_(max_waiting), thread_([this] { work(); }) {}

Worker::~Worker() { stop(); }

void Worker::post(std::shared_ptr<Live> live, std::function<void()> task) {
  Status refusal;
  {
    const MutexLock lock(mutex_);
    if (stopping_) {
      refusal = Status(Code::kUnavailable, "daemon: shutting down", "try again when it is back");
    } else if (waiting_.size() >= max_waiting_) {
      refusal = Status(Code::kResourceExhausted,
                       fmt::format("queue: {} calls are waiting (expected fewer)", waiting_.size()),
                       "try again a little later");
    } else {
      waiting_.push_back({live, std::move(task)});
    }
  }
  if (!refusal.ok()) return live->on_error(std::move(refusal));
  changed_.notify_one();
}

void Worker::stop() {
  std::deque<Task> left;
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    left = std::exchange(waiting_, {});
  }
  changed_.notify_one();
  if (thread_.joinable()) thread_.join();
  for (const Task& task : left) {
    task.live->on_error(
        Status(Code::kUnavailable, "daemon: shutting down", "try again when it is back"));
  }
}

void Worker::work() {
  pthread_setname_np(pthread_self(), name_.c_str());
  ReleasableMutexLock lock(mutex_);
  while (true) {
    changed_.wait(mutex_, [this]() REQUIRES(mutex_) { return stopping_ || !waiting_.empty(); });
    if (stopping_) return;
    Task task = std::move(waiting_.front());
    waiting_.pop_front();
    lock.unlock();
    if (auto withdrawn = task.live->withdrawal()) {
      task.live->on_error(std::move(*withdrawn));
    } else {
      task.run();
    }
    task = {};  // release what it holds before sleeping
    lock.lock();
  }
}

}  // namespace chimera
