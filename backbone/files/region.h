// The bytes of a file in the address space: mapped, or copied into anonymous memory.
//
// Thread safety: a Region is immutable but for what its maker writes into it; free functions from
// any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>

#include "base/io/env.h"
#include "base/io/mapping_guard.h"
#include "base/status.h"

namespace chimera {

/// What tells one state of a file from another without reading it; taken when it was opened.
struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size = 0;
  int64_t modified_ns = 0;  // since the epoch
  int64_t changed_ns = 0;
};

/// `path` is for messages, here and below.
Result<FileIdentity> identity_of(int fd, const std::string& path);
/// Refuses a file that somebody wrote to between `before` and now. The change time is left out:
/// a rename or a new link moves it and leaves the contents alone.
Status check_unchanged(int fd, const std::string& path, const FileIdentity& before);

/// A mapping of the address space, unmapped with the last view into it.
class Region {
 public:
  Region(void* base, size_t size) : base_(base), size_(size) {}
  /// Outlives a file that shrinks.
  void guard(const std::string& path) { guard_.emplace(base_, size_, path); }
  Region(const Region&) = delete;
  Region& operator=(const Region&) = delete;
  ~Region();

  std::byte* data() const { return static_cast<std::byte*>(base_); }
  size_t size() const { return size_; }
  std::span<const std::byte> bytes() const { return {data(), size_}; }
  /// Of the first `size` bytes. resource_exhausted when there is no memory for it.
  Status protect(uint64_t size, int protection, const std::string& path);

 private:
  void* base_;
  size_t size_;
  std::optional<MappingGuard> guard_;
};

/// mmap with these flags; `fd` may be -1.
Result<std::shared_ptr<Region>> map_region(const std::string& path, uint64_t size, int protection,
                                           int flags, int fd);
/// The whole file, read-only and guarded.
Result<std::shared_ptr<Region>> map_file(const std::string& path, uint64_t size, int fd);
/// Addresses for `size` bytes and no memory yet; see Region::protect. Left out of core dumps.
Result<std::shared_ptr<Region>> reserve_region(const std::string& path, uint64_t size);
/// Best effort: fewer TLB misses while weights stream through the cores.
void advise_huge_pages(const Region& region);

/// Tells the system that nobody needs these bytes of a region now, in whole pages: neighbours share
/// the first and the last one. Mapped bytes are read from their file again when somebody does;
/// those of a copy are gone.
void give_back_pages(std::span<const std::byte> bytes);

/// A sparse file costs its author nothing; copying it must not cost the daemon its life.
/// resource_exhausted when `needed` bytes are more than the system has available.
Status check_memory(const std::string& path, uint64_t needed);

}  // namespace chimera
