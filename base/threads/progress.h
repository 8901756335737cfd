// How far a piece of work has come, and whether anybody still wants it, told and asked by the code
// that does it: reading, hashing. As with background.h, that code sees the scope of its thread and
// knows nothing of who is waiting.
//
// Thread safety: Progress from any thread; everything else concerns the calling thread only.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>

namespace chimera {

class Progress {
 public:
  /// `on_step` is called now and then, on the threads that work, at most ten times a second: as
  /// often as a person looks. May be empty.
  explicit Progress(std::function<void()> on_step = nullptr) : on_step_(std::move(on_step)) {}

  void expect(uint64_t bytes) { total_ += bytes; }
  void add(uint64_t bytes);
  /// Asks whoever works to stop.
  void give_up() { given_up_ = true; }

  uint64_t total() const { return total_; }
  uint64_t done() const { return done_; }
  bool given_up() const { return given_up_; }

 private:
  const std::function<void()> on_step_;
  std::atomic<uint64_t> total_{0}, done_{0};
  std::atomic<bool> given_up_{false};
  std::atomic<int64_t> next_step_ns_{0};
};

/// While one lives, the work of this thread belongs to `progress`, which may be null.
class ProgressScope {
 public:
  explicit ProgressScope(Progress* progress);
  ~ProgressScope();
  ProgressScope(const ProgressScope&) = delete;
  ProgressScope& operator=(const ProgressScope&) = delete;

 private:
  Progress* const before_;
};

/// That of this thread's scope, null outside of one: to take along to helping threads.
Progress* current_progress();
/// So many bytes more are done. To be called between pieces of work of some 100 us.
void note_progress(uint64_t bytes);
/// Whether the work is to be left. What it gives then counts for nothing.
bool work_given_up();

}  // namespace chimera
