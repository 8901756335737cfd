// Modules are read side by side, but for libraries that run in this process: what their code does
// to the process is compared before and after (process_state.h), and a file that another module's
// reading opens meanwhile would be taken for theirs.
//
// Code inside the process cannot be ended. One that does not come back keeps its turn, and takes
// nobody along: those that must be alone are refused by its name, all others are read beside it.
//
// Thread safety: all methods from any thread.
#pragma once

#include <chrono>
#include <string>

#include "base/status.h"
#include "base/threads/mutex.h"

namespace chimera {

class ReadingTurns {
 public:
  /// `most`: for how long a turn alone is waited for (libraries.max_load_ms).
  explicit ReadingTurns(std::chrono::milliseconds most) : most_(most) {}

  /// Waits until the turn of `module` may begin: `alone`, or beside others that are not. cancelled
  /// when the work of this thread is given up (progress.h), unavailable behind one that has been
  /// alone for `most`; then it has not begun.
  Status begin(bool alone, const std::string& module);
  void end(bool alone);

 private:
  using Clock = std::chrono::steady_clock;
  bool overdue() const REQUIRES(mutex_) { return alone_ && Clock::now() - alone_since_ >= most_; }
  /// Whether it may begin now.
  bool free(bool alone) const REQUIRES(mutex_) {
    return alone ? !alone_ && beside_ == 0 : overdue() || (!alone_ && waiting_alone_ == 0);
  }
  Status wait(bool alone, const std::string& module) REQUIRES(mutex_);

  const std::chrono::milliseconds most_;
  Mutex mutex_;
  CondVar changed_;
  int beside_ GUARDED_BY(mutex_) = 0;
  int waiting_alone_ GUARDED_BY(mutex_) = 0;  // go first, else they might wait for ever
  bool alone_ GUARDED_BY(mutex_) = false;
  std::string alone_module_ GUARDED_BY(mutex_);
  Clock::time_point alone_since_ GUARDED_BY(mutex_);
};

/// For as long as it lives, if status() is ok.
class ReadingTurn {
 public:
  ReadingTurn(ReadingTurns* turns, bool alone, const std::string& module)
      : turns_(turns), alone_(alone), status_(turns_->begin(alone, module)) {}
  ~ReadingTurn() {
    if (status_.ok()) turns_->end(alone_);
  }
  ReadingTurn(const ReadingTurn&) = delete;
  ReadingTurn& operator=(const ReadingTurn&) = delete;

  const Status& status() const { return status_; }

 private:
  ReadingTurns* const turns_;
  const bool alone_;
  const Status status_;
};

}  // namespace chimera
