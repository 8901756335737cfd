#include "terminal/keyboard.h"

#include <poll.h>
#include <unistd.h>

#include <algorithm>

namespace chimera::cli {

Keyboard::Keyboard(bool wanted) {
  if (!wanted || isatty(STDIN_FILENO) == 0 || tcgetattr(STDIN_FILENO, &before_) != 0) return;
  termios raw = before_;
  raw.c_lflag &= ~static_cast<tcflag_t>(ICANON | ECHO);
  raw.c_cc[VMIN] = 0;
  raw.c_cc[VTIME] = 0;
  active_ = tcsetattr(STDIN_FILENO, TCSANOW, &raw) == 0;
}

Keyboard::~Keyboard() {
  if (active_) tcsetattr(STDIN_FILENO, TCSANOW, &before_);
}

char Keyboard::wait(std::chrono::steady_clock::time_point end) const {
  using Milliseconds = std::chrono::milliseconds;
  // In slices, so that a Ctrl-C between two of them is noticed.
  const auto left = std::chrono::ceil<Milliseconds>(end - std::chrono::steady_clock::now());
  const auto slice = std::clamp(left, Milliseconds(0), Milliseconds(100));
  pollfd input{.fd = active_ ? STDIN_FILENO : -1, .events = POLLIN, .revents = 0};
  char key = 0;
  if (poll(&input, 1, static_cast<int>(slice.count())) > 0 && read(STDIN_FILENO, &key, 1) == 1) {
    return key;
  }
  return 0;
}

}  // namespace chimera::cli
