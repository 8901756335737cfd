// Memory whose misuse is caught in the act: pages without access on both sides.
//
// A handler of SIGSEGV and SIGBUS turns a fault into the verdict of the case, one sentence that
// says which memory was touched how. Thread safety: create and destroy on one thread; the handler
// works on any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string_view>

#include "check/cases/case.h"

namespace chimera::check {

/// Where the memory lies between its guard pages.
enum class Flush : uint8_t {
  kEnd,    // its last byte is the last before a guard page (as far as `alignment` allows)
  kBegin,  // its first byte is the first after a guard page
};

class Guarded {
 public:
  /// `size` bytes at a multiple of `alignment` (a power of two up to 4096). `name` is what the
  /// verdict calls it; a literal. Never null: without memory the case ends.
  Guarded(const char* name, size_t size, size_t alignment, Flush flush = Flush::kEnd);
  ~Guarded();
  Guarded(const Guarded&) = delete;
  Guarded& operator=(const Guarded&) = delete;

  unsigned char* data() const { return data_; }
  size_t size() const { return size_; }
  /// Makes its pages readable only.
  void read_only();
  void writable();
  /// Takes access from the last page of each of `count` parts of `part` bytes (multiples of 4096).
  void protect_gaps(size_t part, size_t count);
  /// Nobody may touch it any more. The addresses stay taken, so that a later use is seen.
  void revoke();

 private:
  unsigned char* map_;
  size_t mapped_;
  unsigned char* data_;
  size_t size_;
  int slot_;
};

/// From now on a fault ends the case with a verdict.
void catch_faults(Context& context);

}  // namespace chimera::check
