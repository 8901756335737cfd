// What a module leaves in this process, as the kernel tells it: to be looked at while it is loaded,
// and again when it should be gone.
//
// Thread safety: values; look() reads /proc of the process.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

namespace chimera {

class Module;

/// Bytes of a module's file in memory, for as long as `owner` is there.
struct HeldBytes {
  std::weak_ptr<const void> owner;
  uintptr_t begin = 0, end = 0;
};

struct Traces {
  uint64_t mapped_bytes = 0;  // of its files' copies, in mappings of /proc/self/smaps
  uint64_t mapped_files = 0;  // mappings of its library, or of files in its directory
  uint64_t descriptors = 0;   // open ones of the same
};

/// Where to look. Holds nothing of the module.
class ModuleTraces {
 public:
  ModuleTraces() = default;
  explicit ModuleTraces(const Module& module);
  /// Copies of files are told from what took their addresses since by their mark (reserve_region).
  Traces look() const;

 private:
  bool names_file(const std::string& path) const;
  uint64_t marked_bytes(uintptr_t begin, uintptr_t end) const;

  struct Range {
    uintptr_t begin, end;
  };
  std::vector<Range> ranges_;
  std::string directory_;  // with its slash
  std::string image_;      // of a library: the name of its memory file
};

}  // namespace chimera
