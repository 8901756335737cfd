// Modules are read side by side, but for libraries that run in this process: what their code does
// to the process is compared before and after (process_state.h), and a file that another module's
// reading opens meanwhile would be taken for theirs.
//
// Thread safety: all methods from any thread.
#pragma once

#include "base/threads/mutex.h"

namespace chimera {

class ReadingTurns {
 public:
  /// Waits until the turn may begin: `alone`, or beside others that are not.
  void begin(bool alone) {
    const MutexLock lock(mutex_);
    if (alone) ++waiting_alone_;
    changed_.wait(mutex_, [&]() REQUIRES(mutex_) {
      return alone ? !alone_ && beside_ == 0 : !alone_ && waiting_alone_ == 0;
    });
    if (alone) {
      --waiting_alone_;
      alone_ = true;
    } else {
      ++beside_;
    }
  }
  void end(bool alone) {
    const MutexLock lock(mutex_);
    if (alone) {
      alone_ = false;
    } else {
      --beside_;
    }
    changed_.notify_all();
  }

 private:
  Mutex mutex_;
  CondVar changed_;
  int beside_ GUARDED_BY(mutex_) = 0;
  int waiting_alone_ GUARDED_BY(mutex_) = 0;  // go first, else they might wait for ever
  bool alone_ GUARDED_BY(mutex_) = false;
};

/// For as long as it lives.
class ReadingTurn {
 public:
  ReadingTurn(ReadingTurns* turns, bool alone) : turns_(turns), alone_(alone) {
    turns_->begin(alone);
  }
  ~ReadingTurn() { turns_->end(alone_); }
  ReadingTurn(const ReadingTurn&) = delete;
  ReadingTurn& operator=(const ReadingTurn&) = delete;

 private:
  ReadingTurns* const turns_;
  const bool alone_;
};

}  // namespace chimera
