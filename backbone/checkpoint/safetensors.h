// Reader and writer of the safetensors format; the reader is made for untrusted files.
//
// The file is validated completely before anything is allocated for its data: header length
// against cap and file size, a strict JSON object, dtype and shape products in checked
// arithmetic, data ranges contiguous from 0 to the end of the file without hole or overlap. Only
// regular files are opened (through symbolic links, as model caches use them).
//
// Residency decides what happens when the file changes on disk afterwards (reliability R21):
// kCopied reads the data into private anonymous memory, so later truncation or overwriting is
// invisible - what the daemon uses for modules; kMapped maps the file, for offline tools and for
// checkpoints whose copy would cost more memory and time than it is worth. A mapped file must stay
// as it is: put another one in place by renaming. If it shrinks nevertheless, the process lives
// and mapping_damage() says so (mapping_guard.h). kAutomatic copies a checkpoint of up to 256 MiB
// and maps a larger one. Either way header and data come from one descriptor, and what was checked
// is what is used.
//
// Thread safety: immutable after open. Views keep the memory alive through `owner`.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/io/env.h"
#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

class DigestMemo;

/// What Residency::kAutomatic copies at most, bytes: a fraction of a second and of any server's
/// memory.
inline constexpr uint64_t kCopyAtMost = 256u << 20;

enum class Residency : uint8_t { kCopied, kMapped, kAutomatic };

/// What tells one state of a file from another without reading it; taken when it was opened.
struct FileIdentity {
  uint64_t device = 0;
  uint64_t inode = 0;
  uint64_t size = 0;
  int64_t modified_ns = 0;  // since the epoch
  int64_t changed_ns = 0;
};

class SafetensorsFile {
 public:
  /// Longest accepted JSON header, bytes: what the format allows.
  static constexpr uint64_t kMaxHeaderBytes = 100'000'000;

  /// Errors: not_found / permission_denied / resource_exhausted from the system (the latter also
  /// when a copy would not fit the memory that is available), invalid_argument when it is no
  /// regular file, unimplemented for a dtype Chimera does not know, else data_corrupt.
  static Result<SafetensorsFile> open(const std::string& path, Residency residency,
                                      Env& env = Env::system());
  /// Validates an image in memory (fuzzing, tests). The views borrow `image`.
  static Result<SafetensorsFile> parse(std::span<const std::byte> image, std::string label);

  const std::string& path() const { return path_; }
  const std::vector<TensorView>& tensors() const { return tensors_; }  // in data order
  /// Null when absent.
  const TensorView* find(std::string_view name) const;
  /// Entries of "__metadata__".
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// Size of the file, bytes.
  uint64_t file_bytes() const { return image_.size(); }
  bool mapped() const { return mapped_; }
  /// All zero after parse().
  const FileIdentity& identity() const { return identity_; }
  /// "sha256:…" of the file as it was read: with kCopied, of the very bytes the views show.
  std::string sha256(DigestMemo* memo = nullptr) const;

 private:
  std::string path_;
  std::vector<TensorView> tensors_;
  std::vector<uint32_t> by_name_;  // indices into tensors_, in name order
  std::map<std::string, std::string> metadata_;
  std::span<const std::byte> image_;   // the whole file
  std::shared_ptr<const void> owner_;  // of image_; null after parse()
  bool mapped_ = false;
  FileIdentity identity_;
  friend class SafetensorsParser;
};

/// The JSON header that write_safetensors gives these tensors; their bytes are counted, not read.
/// Same errors. For who writes the data in another order.
Result<std::string> safetensors_header(const std::string& path,
                                       const std::vector<TensorView>& tensors,
                                       const std::map<std::string, std::string>& metadata);

/// Writes tensors (data in the given order, streamed) to `path` by temp file, fsync, rename,
/// directory fsync. An existing file is replaced atomically or left untouched on error.
/// invalid_argument: a name twice or not UTF-8, or bytes that do not match shape and dtype.
Status write_safetensors(const std::string& path, const std::vector<TensorView>& tensors,
                         const std::map<std::string, std::string>& metadata,
                         Env& env = Env::system());

}  // namespace chimera
