// Mapped files that shrink: the kernel answers reads behind the new end with SIGBUS, which would
// end the process. The guard puts zeros there instead and remembers the damage, so that the daemon
// lives and can refuse to compute with what is left.
//
// Thread safety: all functions may be called from any thread. One SIGBUS handler per process,
// installed with the first mapping; a fault elsewhere goes to the handler that was there before.
#pragma once

#include <cstddef>
#include <string>

namespace chimera {

/// Guards [base, base + size) while it lives. At most 1024 at a time; one more is simply not
/// guarded.
class MappingGuard {
 public:
  MappingGuard(void* base, size_t size, std::string path);
  ~MappingGuard();
  MappingGuard(const MappingGuard&) = delete;
  MappingGuard& operator=(const MappingGuard&) = delete;

 private:
  int slot_ = -1;
};

/// Whether a guarded mapping was found shorter than its file once was. Never reset. Cheap.
bool mapping_damaged();
/// Path of the first such file; empty when there is none.
std::string damaged_mapping();

}  // namespace chimera
