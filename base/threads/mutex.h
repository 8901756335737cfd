// Mutex, MutexLock and CondVar: the standard ones with annotations that Clang checks
// (thread_annotations.h); each is as large and as fast as what it wraps. New code uses these, so
// that `GUARDED_BY` on a member is more than a comment:
//
//   Mutex mutex_;
//   CondVar changed_;
//   std::deque<Job> jobs_ GUARDED_BY(mutex_);
//
//   MutexLock lock(mutex_);
//   while (jobs_.empty()) changed_.wait(mutex_);
//
// ThreadRole does the same for data that belongs to one thread instead of to a mutex.
//
// Thread safety: Mutex and CondVar from any thread; a lock object and a ThreadRole by the thread
// that made or entered it.
#pragma once

#include <cassert>
#include <chrono>
#include <condition_variable>
#include <mutex>
#include <utility>
#ifndef NDEBUG
#include <atomic>
#include <thread>
#endif

#include "base/threads/thread_annotations.h"

namespace chimera {

class CAPABILITY("mutex") Mutex {
 public:
  Mutex() = default;
  Mutex(const Mutex&) = delete;
  Mutex& operator=(const Mutex&) = delete;

  void lock() ACQUIRE() { mutex_.lock(); }
  void unlock() RELEASE() { mutex_.unlock(); }
  bool try_lock() TRY_ACQUIRE(true) { return mutex_.try_lock(); }

 private:
  friend class CondVar;
  std::mutex mutex_;
};

/// Holds a mutex to the end of its block.
class SCOPED_CAPABILITY MutexLock {
 public:
  explicit MutexLock(Mutex& mutex) ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~MutexLock() RELEASE() { mutex_.unlock(); }
  MutexLock(const MutexLock&) = delete;
  MutexLock& operator=(const MutexLock&) = delete;

 private:
  Mutex& mutex_;
};

/// The same for a block that lets go of the mutex early or for a while.
class SCOPED_CAPABILITY ReleasableMutexLock {
 public:
  explicit ReleasableMutexLock(Mutex& mutex) ACQUIRE(mutex) : mutex_(mutex) { mutex_.lock(); }
  ~ReleasableMutexLock() RELEASE() {
    if (held_) mutex_.unlock();
  }
  ReleasableMutexLock(const ReleasableMutexLock&) = delete;
  ReleasableMutexLock& operator=(const ReleasableMutexLock&) = delete;

  void unlock() RELEASE() {
    held_ = false;
    mutex_.unlock();
  }
  void lock() ACQUIRE() {
    mutex_.lock();
    held_ = true;
  }

 private:
  Mutex& mutex_;
  bool held_ = true;
};

/// For a lock that passes from object to object, or is taken only sometimes: nothing that the
/// analysis could follow. Where it guards data, a comment says which.
using MovableMutexLock = std::unique_lock<Mutex>;

/// A condition variable of a Mutex. What is waited for is a lambda that runs with the mutex held,
/// and says so, as the analysis does not look from a lambda to the lock around it:
///
///   changed_.wait(mutex_, [this]() REQUIRES(mutex_) { return !jobs_.empty(); });
class CondVar {
 public:
  void notify_one() { condition_.notify_one(); }
  void notify_all() { condition_.notify_all(); }

  /// Returns once `done()` holds; lets go of `mutex` in between. (Not analysed: it cannot know that
  /// the mutex of `done` is this one.)
  template <class Predicate>
  void wait(Mutex& mutex, Predicate done) REQUIRES(mutex) NO_THREAD_SAFETY_ANALYSIS {
    Adopted lock(mutex.mutex_);
    condition_.wait(lock.held, std::move(done));
  }
  /// The same, at most for `timeout`: whether `done()` holds.
  template <class Rep, class Period, class Predicate>
  bool wait_for(Mutex& mutex, const std::chrono::duration<Rep, Period>& timeout, Predicate done)
      REQUIRES(mutex) NO_THREAD_SAFETY_ANALYSIS {
    Adopted lock(mutex.mutex_);
    return condition_.wait_for(lock.held, timeout, std::move(done));
  }

 private:
  // The form in which the standard class wants the mutex; gives it back still locked.
  struct Adopted {
    explicit Adopted(std::mutex& mutex) : held(mutex, std::adopt_lock) {}
    ~Adopted() { held.release(); }
    Adopted(const Adopted&) = delete;
    Adopted& operator=(const Adopted&) = delete;
    std::unique_lock<std::mutex> held;
  };
  std::condition_variable condition_;
};

/// Stands for "the thread that …": data GUARDED_BY a role belongs to the thread that is in it.
/// Costs nothing; debug and sanitizer builds check assert_here().
///
///   ThreadRole io_thread_;
///   std::map<int, Peer> peers_ GUARDED_BY(io_thread_);
///   void loop() { ThreadRoleScope role(io_thread_); … }
class CAPABILITY("role") ThreadRole {
 public:
  ThreadRole() = default;
  ThreadRole(const ThreadRole&) = delete;
  ThreadRole& operator=(const ThreadRole&) = delete;

#ifdef NDEBUG
  void enter() ACQUIRE() {}
  void leave() RELEASE() {}
  /// For a function that runs on that thread where the analysis cannot see it: a callback.
  void assert_here() const ASSERT_CAPABILITY(this) {}
#else
  void enter() ACQUIRE() {
    [[maybe_unused]] const std::thread::id before = holder_.exchange(std::this_thread::get_id());
    assert(before == std::thread::id());
  }
  void leave() RELEASE() { holder_.store(std::thread::id()); }
  void assert_here() const ASSERT_CAPABILITY(this) {
    assert(holder_.load() == std::this_thread::get_id());
  }

 private:
  std::atomic<std::thread::id> holder_{};
#endif
};

/// In a role to the end of its block.
class SCOPED_CAPABILITY ThreadRoleScope {
 public:
  explicit ThreadRoleScope(ThreadRole& role) ACQUIRE(role) : role_(role) { role_.enter(); }
  ~ThreadRoleScope() RELEASE() { role_.leave(); }
  ThreadRoleScope(const ThreadRoleScope&) = delete;
  ThreadRoleScope& operator=(const ThreadRoleScope&) = delete;

 private:
  ThreadRole& role_;
};

}  // namespace chimera
