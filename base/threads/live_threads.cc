#include "base/threads/live_threads.h"

#include <cstdlib>
#include <filesystem>
#include <fstream>
#include <optional>
#include <sstream>
#include <system_error>

namespace chimera {
namespace {

// Of the kernel's include/linux/sched.h; shown in field 9 of /proc/PID/stat (proc(5)). A thread
// sets it before it wakes those that join it.
constexpr unsigned long kExiting = 0x4;

/// From "17 (name) S 1 2 3 4 5 flags …"; nothing for a thread that is ending. A name may hold
/// brackets and spaces.
std::optional<LiveThread> parse_stat(const std::string& text) {
  const size_t open = text.find('('), close = text.rfind(')');
  if (open == std::string::npos || close == std::string::npos || close < open) return std::nullopt;
  std::istringstream rest(text.substr(close + 1));
  std::string state, skipped;
  rest >> state;
  for (int i = 0; i < 5; ++i) rest >> skipped;  // ppid, pgrp, session, tty_nr, tpgid
  unsigned long flags = 0;
  if (!(rest >> flags) || (flags & kExiting) != 0 || state == "Z" || state == "X") {
    return std::nullopt;
  }
  return LiveThread{std::atoi(text.c_str()), text.substr(open + 1, close - open - 1)};
}

}  // namespace

std::vector<LiveThread> live_threads() {
  std::vector<LiveThread> threads;
  std::error_code error;
  for (std::filesystem::directory_iterator it("/proc/self/task", error), end; !error && it != end;
       it.increment(error)) {
    std::ifstream file(it->path() / "stat");
    std::string text;
    std::getline(file, text);  // gone meanwhile: empty
    if (auto thread = parse_stat(text)) threads.push_back(std::move(*thread));
  }
  return threads;
}

}  // namespace chimera
