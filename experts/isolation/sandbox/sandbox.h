// The sandbox that chimera-plugin-host puts itself into, in steps: what is possible is done, what
// is not is reported, and the daemon shows the report in `modules`.
//
//   enter()           first thing: no new privileges, death with the daemon, no descriptors, no
//                     core dumps, resource limits, first victim when memory runs out
//   before_loading()  Landlock: of the file system only the library directories, to read; no TCP,
//                     no signals to others. seccomp: a list of calls wide enough for the dynamic
//                     loader and for threads, not for processes. Constructors of the plugin
//                     already run under these
//   lock_down()       after activation: no capabilities, tight limits, seccomp: a short list of
//                     calls, without opening files, executable memory, new threads or processes.
//                     A call off the list kills the host (SIGSYS); what libraries try by themselves
//                     (stat, ioctl on a stream…) only fails
//
// Sanitizer builds map, open and read freely: there the address-space limit, Landlock and seccomp
// are off, and the report says so.
//
// Thread safety: one thread; lock_down() takes effect on all threads of the process.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <string>
#include <vector>

namespace chimera {

#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
inline constexpr bool kSanitizerBuild = true;
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer) || \
    __has_feature(memory_sanitizer)
inline constexpr bool kSanitizerBuild = true;
#else
inline constexpr bool kSanitizerBuild = false;
#endif
#else
inline constexpr bool kSanitizerBuild = false;
#endif

class Sandbox {
 public:
  /// `keep_fd`: the one descriptor beside 0, 1, 2 that stays open. False when the daemon, process
  /// `parent`, is gone already: then exit.
  bool enter(int keep_fd, pid_t parent);
  /// `address_space`: bytes that the process may map in all.
  void before_loading(uint64_t address_space);
  void lock_down();

  /// "no-new-privs, seccomp (52 calls), …; off: landlock (kernel without it)"
  std::string report() const;

 private:
  void note(bool in_force, std::string what, const std::string& why_not = {});

  std::vector<std::string> in_force_, off_;
};

/// Landlock: read below `directories`, nothing else. 0 when in force (*abi tells the version), else
/// an errno.
int restrict_files(const std::vector<std::string>& directories, int* abi);

/// The two lists of system calls.
enum class CallList : uint8_t { kLoading, kServing };
/// seccomp for all threads. 0 when in force (*calls tells how many it allows), else an errno.
int restrict_calls(CallList list, int* calls);

}  // namespace chimera
