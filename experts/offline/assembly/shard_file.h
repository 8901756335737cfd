// A safetensors file whose data are written in any order by several threads.
//
// The header comes first in the file and is known last (a module of what differs finds out on the
// way what it holds), so room for the longest one is kept and filled with the spaces that the
// format allows behind the JSON.
//
// Thread safety: write() from any thread; the rest by the owner.
#pragma once

#include <atomic>
#include <cstdint>
#include <map>
#include <span>
#include <string>
#include <vector>

#include "base/io/env.h"
#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

class ShardFile {
 public:
  /// Makes `path`.part. `header_bytes`: room for the header, a multiple of eight.
  static Result<ShardFile> create(Env& env, const std::string& path, uint64_t header_bytes);
  ShardFile(ShardFile&& other) noexcept;
  ShardFile& operator=(ShardFile&&) = delete;
  /// Removes an unfinished file.
  ~ShardFile();

  /// `offset`: from the beginning of the data.
  Status write(uint64_t offset, std::span<const std::byte> bytes);
  /// Header, fsync, and the file under its name.
  Status finish(const std::string& header);

 private:
  ShardFile(Env& env, std::string path, int fd, uint64_t header_bytes)
      : env_(&env), path_(std::move(path)), fd_(fd), header_bytes_(header_bytes) {}
  Status put(uint64_t offset, std::span<const std::byte> bytes);

  Env* env_;
  std::string path_;
  int fd_;
  uint64_t header_bytes_;
};

}  // namespace chimera
