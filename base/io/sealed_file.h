// Bytes that were verified, in a memory file that nobody can change any more.
//
// A library is loaded from here and never from its install path: the dynamic loader takes the same
// path (or the same inode) for the same library and serves old code, and a file replaced between
// the check and the load would run unchecked.
//
// Thread safety: immutable after create.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <utility>

#include "base/status.h"

namespace chimera {

/// Seals a memory file against writing, growing, shrinking and further seals. The kernel refuses
/// while somebody may still write, which includes moments in which it holds a page itself
/// (compaction, a scan of memory): such a refusal is waited out for up to half a second.
/// `what`: begins the message of an error.
Status seal_memory_file(int fd, const std::string& what);

class SealedFile {
 public:
  /// Copies `bytes` into a memory file with the seals write, grow, shrink and seal. `name` shows up
  /// in /proc/PID/maps.
  static Result<SealedFile> create(const std::string& name, std::span<const std::byte> bytes);
  /// Takes over a descriptor that came from another process. data_corrupt unless it is a memory
  /// file with all four seals.
  static Result<SealedFile> adopt(int fd_owned, const std::string& name);
  SealedFile(SealedFile&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), size_(other.size_), name_(std::move(other.name_)) {}
  SealedFile& operator=(SealedFile&&) = delete;
  ~SealedFile();

  int fd() const { return fd_; }
  uint64_t size() const { return size_; }
  const std::string& name() const { return name_; }

  /// A path that opens this file and that was never used before in this process as long as
  /// `generation` was not: the dynamic loader compares names, and descriptor numbers come again.
  std::string unique_path(uint64_t generation) const;

 private:
  SealedFile(int fd, uint64_t size, std::string name)
      : fd_(fd), size_(size), name_(std::move(name)) {}
  int fd_;
  uint64_t size_;
  std::string name_;
};

}  // namespace chimera
