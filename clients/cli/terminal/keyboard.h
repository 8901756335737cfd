// Keys as they are pressed, without waiting for Enter. A terminal is put back on the way out.
//
// Thread safety: by the main thread.
#pragma once

#include <termios.h>

#include <chrono>

namespace chimera::cli {

class Keyboard {
 public:
  /// Takes over standard input where it is a terminal and `wanted`.
  explicit Keyboard(bool wanted);
  ~Keyboard();
  Keyboard(const Keyboard&) = delete;
  Keyboard& operator=(const Keyboard&) = delete;

  bool active() const { return active_; }
  /// A key, or 0 when none came until `end`, or a signal did.
  char wait(std::chrono::steady_clock::time_point end) const;

 private:
  termios before_{};
  bool active_ = false;
};

}  // namespace chimera::cli
