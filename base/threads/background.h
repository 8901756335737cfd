// Work beside the streams that gives way to them.
//
// A low priority does not keep a busy thread from disturbing others: the kernel lets whoever
// got a CPU keep it until the next timer tick, 4 ms at 250 Hz, which is as long as a decode step of
// a small model; and a compute thread that waits a moment for its next share has given its CPU
// away for that long. A thread in the background works in short bursts instead, and rests between
// them as long as somebody else wants its CPU. Where nobody does, it runs on at full speed.
//
// Thread safety: everything here concerns the calling thread only.
#pragma once

namespace chimera {

/// While one lives, give_way() of this thread does what it says. Scopes may be nested; the
/// innermost counts.
class BackgroundScope {
 public:
  /// With `background` false the thread is not in the background meanwhile: for what must not be
  /// drawn out, such as a call with a deadline.
  explicit BackgroundScope(bool background = true);
  ~BackgroundScope();
  BackgroundScope(const BackgroundScope&) = delete;
  BackgroundScope& operator=(const BackgroundScope&) = delete;

 private:
  const bool before_;
};

/// Whether this thread is in a BackgroundScope.
bool in_background();

/// In the background, and at the end of a burst: offers the CPU, and rests when it was taken. Else
/// it returns at once (a nanosecond outside of the background). To be called between pieces of
/// work of some 100 us.
void give_way();

}  // namespace chimera
