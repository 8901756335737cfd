// What is watched while a call is inside the plugin: allocations and exit handlers, by replacing
// malloc and its relatives in this program; system calls, by a seccomp filter.
//
// Thread safety: the counters are atomic; a Watch belongs to the thread that made it.
#pragma once

#include <cstdint>
#include <string>

#include "check/cases/case.h"

namespace chimera::check {

/// False in sanitizer builds, which bring their own malloc.
bool allocations_watched();

/// Marks the calling thread as inside the plugin (or, nested, in the host again).
class Inside {
 public:
  explicit Inside(bool inside = true);
  ~Inside();
  Inside(const Inside&) = delete;
  Inside& operator=(const Inside&) = delete;

 private:
  bool before_;
};
bool inside_plugin();

/// Bytes of the heap in use by the whole process; 0 in sanitizer builds.
uint64_t live_heap_bytes();
/// Heap allocations from inside the plugin since the start of the process.
uint64_t plugin_allocations();
/// The `nth` (1 …) allocation from inside the plugin from now on fails, and all after it when
/// `from_then_on`; 0: none.
void fail_plugin_allocation(uint64_t nth, bool from_then_on = false);
/// Whether the armed failure was reached.
bool allocation_failed();
/// Handlers registered from inside the plugin with atexit() or on_exit().
uint64_t exit_handlers();

/// From now on any system call of this thread other than exit ends the case: the verdict is
/// failure, its text says which. What is called afterwards must make none; see conclude().
/// A text when the filter could not be installed.
std::string forbid_system_calls(Context& context);

/// Writes the verdict without system calls or allocation and ends the process.
[[noreturn]] void conclude(Board& board, Verdict verdict, const char* text);

}  // namespace chimera::check
