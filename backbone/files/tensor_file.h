// One file of named tensors, whatever its format: what safetensors and GGUF files have in common,
// and all that the rest of the engine sees of either.
//
// Residency decides what happens when the file changes on disk after it was opened (reliability
// R21): kCopied reads it into private anonymous memory, so later truncation or overwriting is
// invisible - what the daemon uses for modules; kMapped maps it, for offline tools and for
// checkpoints whose copy would cost more memory and time than it is worth. A mapped file must stay
// as it is: put another one in place by renaming. If it shrinks nevertheless, the process lives and
// mapping_damage() says so (mapping_guard.h). kAutomatic copies a checkpoint of up to 256 MiB and
// maps a larger one.
//
// Thread safety: immutable once it is made. Views keep the memory alive through `owner`.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backbone/files/region.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// What Residency::kAutomatic copies at most, bytes: a fraction of a second and of any server's
/// memory.
inline constexpr uint64_t kCopyAtMost = 256u << 20;

enum class Residency : uint8_t { kCopied, kMapped, kAutomatic };

class TensorFile {
 public:
  TensorFile() = default;
  /// REQUIRES: every tensor has a name of its own.
  TensorFile(std::string path, std::vector<TensorView> tensors, uint64_t bytes, bool mapped,
             const FileIdentity& identity, std::shared_ptr<const void> owner);

  const std::string& path() const { return path_; }
  const std::vector<TensorView>& tensors() const { return tensors_; }  // in data order
  /// Null when absent.
  const TensorView* find(std::string_view name) const;
  /// Size of the file, bytes.
  uint64_t file_bytes() const { return bytes_; }
  bool mapped() const { return mapped_; }
  /// Of its bytes, and so of the views that are in place; null for a borrowed image.
  const std::shared_ptr<const void>& owner() const { return owner_; }
  /// All zero for an image in memory.
  const FileIdentity& identity() const { return identity_; }

 protected:
  std::string path_;
  std::vector<TensorView> tensors_;
  std::vector<uint32_t> by_name_;  // indices into tensors_, in name order
  uint64_t bytes_ = 0;
  bool mapped_ = false;
  FileIdentity identity_;
  std::shared_ptr<const void> owner_;
};

}  // namespace chimera
