// Work beside the streams that gives way to them.
//
// A low priority does not keep a busy thread from disturbing others: the kernel lets whoever
// got a CPU keep it until the next timer tick, 4 ms at 250 Hz, which is as long as a decode step of
// a small model; and a compute thread that waits a moment for its next share has given its CPU
// away for that long. A thread in the background works in short bursts instead, and rests between
// them as long as somebody else wants its CPU. Where nobody does, it runs on at full speed. The
// bursts of all threads that give way to the same streams share one budget: several loads take no
// more from them than one. While no stream runs, nobody rests, and loads share the CPUs with one
// another as the kernel sees fit.
//
// Thread safety: a Foreground from any thread; everything else concerns the calling thread only.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>

namespace chimera {

/// What background work gives way to: an engine, which says whether it has streams.
class Foreground {
 public:
  Foreground();
  void set_busy(bool busy) { busy_.store(busy, std::memory_order_relaxed); }
  bool busy() const { return busy_.load(std::memory_order_relaxed); }

  using Clock = std::chrono::steady_clock;
  /// When a thread whose burst ended at `now` may begin the next one; it does.
  Clock::time_point next_burst(Clock::time_point now);

 private:
  std::atomic<bool> busy_{false};
  const std::chrono::nanoseconds apart_;  // beginnings of bursts
  std::atomic<int64_t> next_ns_{0};       // that nobody has yet
};

/// While one lives, give_way() of this thread does what it says. Scopes may be nested; the
/// innermost counts.
class BackgroundScope {
 public:
  /// Gives way to whoever wants the CPU.
  BackgroundScope() : BackgroundScope(true, nullptr) {}
  /// The same, but only while `foreground` is busy. It outlives this.
  explicit BackgroundScope(Foreground* foreground) : BackgroundScope(true, foreground) {}
  /// With `background` false the thread is not in the background meanwhile: for what must not be
  /// drawn out, such as a call with a deadline.
  explicit BackgroundScope(bool background) : BackgroundScope(background, nullptr) {}
  ~BackgroundScope();
  BackgroundScope(const BackgroundScope&) = delete;
  BackgroundScope& operator=(const BackgroundScope&) = delete;

 private:
  friend class BackgroundHelper;
  BackgroundScope(bool background, Foreground* foreground);
  const bool before_;
  Foreground* const foreground_before_;
};

/// The scope of a thread, to take along to threads that help it.
class BackgroundHelper {
 public:
  /// Of the calling thread.
  BackgroundHelper();
  /// The same on the thread that calls this.
  BackgroundScope scope() const { return {background_, foreground_}; }

 private:
  const bool background_;
  Foreground* const foreground_;
};

/// Whether this thread is in a BackgroundScope.
bool in_background();

/// Whether this thread may have somebody to give way to now: in the background, unless whom its
/// scope names is not busy.
bool foreground_busy();

/// In the background, and at the end of a burst: offers the CPU, and rests when it was taken. Else
/// it returns at once (a nanosecond outside of the background). To be called between pieces of
/// work of some 100 us.
void give_way();

}  // namespace chimera
