// Threads that run jobs, begun in the order in which they came. Their priority is that of the
// process: plugin hosts are started here and inherit it, and without privileges nobody could raise
// theirs again. They live as long as the pool, and so do the hosts (PR_SET_PDEATHSIG).
//
// Thread safety: run() may be called from any thread but the pool's own, post() from any.
#pragma once

#include <cstddef>
#include <deque>
#include <functional>
#include <future>
#include <memory>
#include <new>
#include <string>
#include <thread>
#include <type_traits>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/threads/mutex.h"

namespace chimera {

class WorkerPool {
 public:
  /// More waiting jobs than this get resource_exhausted: each of them may hold a thread.
  static constexpr size_t kMaxWaiting = 256;

  explicit WorkerPool(int threads = 1);
  ~WorkerPool() { stop(); }
  WorkerPool(const WorkerPool&) = delete;
  WorkerPool& operator=(const WorkerPool&) = delete;

  /// Finishes the running jobs; waiting and later ones answer unavailable. From one thread.
  void stop();

  /// Runs `job` (returning a Result or Status) and gives its answer. What it throws becomes a
  /// Status.
  template <class Job, class Answer = std::invoke_result_t<Job>>
  Answer run(Job job) {
    auto promise = std::make_shared<std::promise<Answer>>();
    std::future<Answer> answer = promise->get_future();
    post(std::move(job), [promise](Answer given) { promise->set_value(std::move(given)); });
    return answer.get();
  }

  /// The same without waiting: `done` takes the answer, once, on a thread of the pool, or on the
  /// caller's when the job is refused.
  template <class Job, class Done, class Answer = std::invoke_result_t<Job>>
  void post(Job job, Done done) {
    auto shared = std::make_shared<Done>(std::move(done));
    const Status queued = enqueue([shared, job = std::move(job)](bool stopping) mutable {
      (*shared)(stopping ? Answer(stopped()) : guarded<Answer>(job));
    });
    if (!queued.ok()) (*shared)(Answer(queued));
  }

 private:
  static Status stopped();
  template <class Answer, class Job>
  static Answer guarded(Job& job) {
    try {
      return job();
    } catch (const std::bad_alloc&) {
      return Answer(Status(Code::kResourceExhausted, "out of memory", "Free memory and retry"));
    } catch (const std::exception& e) {
      return Answer(Status(Code::kInternal, e.what()));
    }
  }
  Status enqueue(std::function<void(bool stopping)> job);
  void loop();

  Mutex mutex_;
  CondVar wake_;
  std::deque<std::function<void(bool)>> jobs_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::vector<std::thread> threads_;
};

}  // namespace chimera
