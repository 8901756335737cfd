// PluginImage: a library in this process, from the loader's open to its close.
//
// RAII in the order of the ABI: load -> compare the process state -> entry -> init -> factory, and
// back: deinit -> close and verify, or keep. A library is closed only if it declares that it
// unloads cleanly, has no unique symbols and left neither threads nor signal handlers; the loader's
// word is not taken for it: the mapping must be gone. What stays is counted by the runtime.
//
// Thread safety: load and destruction inside LibraryRuntime::control(); accessors from any thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>

#include "base/status.h"
#include "chimera/expert.h"
#include "experts/library/backend.h"

namespace chimera {

class PluginImage {
 public:
  /// resource_exhausted at the cap of kept images; data_corrupt when the loader refuses the file or
  /// the entry is not one; failed_precondition for another ABI, or constructors with side effects.
  static Result<std::unique_ptr<PluginImage>> load(const LibrarySource& source,
                                                   LibraryRuntime& runtime)
      REQUIRES(runtime.control());
  ~PluginImage();
  PluginImage(const PluginImage&) = delete;
  PluginImage& operator=(const PluginImage&) = delete;

  const chimera_expert_entry& entry() const { return *entry_; }
  const chimera_expert_factory& factory() const { return *factory_; }
  /// Null when the library has no plugin of this id.
  const chimera_expert_descriptor* find(const std::string& id) const;
  /// What the image occupies in memory.
  uint64_t mapped_bytes() const { return mapped_bytes_; }

 private:
  struct Library;
  PluginImage(const LibrarySource& source, LibraryRuntime& runtime);
  Status open(const SealedFile& file);
  Status check_entry() const;
  Status initialise(const std::string& dir);
  /// Why the library must stay; empty: it may be closed.
  std::string reason_to_keep() const;

  LibraryRuntime& runtime_;
  const std::string module_, label_;
  const ElfNote note_;
  std::string path_;  // as the dynamic loader knows it
  std::unique_ptr<Library> library_;
  uintptr_t begin_ = 0, end_ = 0;  // of the mapping
  uint64_t mapped_bytes_ = 0;
  const chimera_expert_entry* entry_ = nullptr;  // null until checked
  const chimera_expert_factory* factory_ = nullptr;
  bool initialised_ = false;
};

}  // namespace chimera
