// What a plugin must leave alone, compared before and after its code ran: signal handlers,
// floating-point control, threads, descriptors, working directory, locale, environment.
//
// Other threads of the daemon open sockets and files meanwhile. So only what can be told apart is
// compared: descriptors of sockets, pipes, memory files and kernel objects are left out, and
// threads count when they carry the name that the control thread has while it is inside a plugin
// (threads inherit it).
//
// Thread safety: values.
#pragma once

#include <signal.h>

#include <array>
#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace chimera {

class ProcessState {
 public:
  static ProcessState now();
  /// What differs from `before`, in words; empty when nothing does.
  std::string difference(const ProcessState& before) const;
  /// Numbers of the signals whose handler lies in [begin, end).
  static std::vector<int> handlers_in(uintptr_t begin, uintptr_t end);
  /// Threads that were started by calls into plugins and still run; not those that were joined.
  static size_t plugin_threads();

 private:
  std::array<void (*)(int), 65> handlers_{};
  uint32_t mxcsr_ = 0;
  size_t threads_ = 0;
  std::vector<std::pair<int, std::string>> files_;  // descriptor, what it refers to
  std::string cwd_, locale_;
  uint64_t environment_ = 0;  // hash
};

/// For the duration of a call into a plugin: the thread carries the name that ProcessState looks
/// for, and MXCSR has the state that the ABI promises; both are restored afterwards.
class ControlCallGuard {
 public:
  ControlCallGuard();
  ~ControlCallGuard();
  ControlCallGuard(const ControlCallGuard&) = delete;
  ControlCallGuard& operator=(const ControlCallGuard&) = delete;

 private:
  char name_[16];
  uint32_t mxcsr_;
};

/// MXCSR for the duration of a forward call: rounding to nearest, no flush to zero, all exceptions
/// masked (the ABI's promise), then as before.
class FloatingPointGuard {
 public:
  FloatingPointGuard();
  ~FloatingPointGuard();
  FloatingPointGuard(const FloatingPointGuard&) = delete;
  FloatingPointGuard& operator=(const FloatingPointGuard&) = delete;

 private:
  uint32_t mxcsr_;
};

}  // namespace chimera
