// Reader and writer of the safetensors format; the reader is made for untrusted files.
//
// The file is validated completely before anything is allocated for its data: header length
// against cap and file size, a strict JSON object, dtype and shape products in checked
// arithmetic, data ranges contiguous from 0 to the end of the file without hole or overlap. Only
// regular files are opened (through symbolic links, as model caches use them).
//
// Residency is that of tensor_file.h. Either way header and data come from one descriptor, and what
// was checked is what is used.
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

#include "backbone/files/tensor_file.h"
#include "base/io/env.h"
#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

class DigestMemo;

class SafetensorsFile : public TensorFile {
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

  /// Entries of "__metadata__".
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// "sha256:…" of the file as it was read: with kCopied, of the very bytes the views show.
  std::string sha256(DigestMemo* memo = nullptr) const;

 private:
  std::map<std::string, std::string> metadata_;
  std::span<const std::byte> image_;  // the whole file
  friend class SafetensorsParser;
};

/// The JSON header that write_safetensors gives these tensors; their bytes are counted, not read.
/// Same errors. For who writes the data in another order.
Result<std::string> safetensors_header(const std::string& path,
                                       const std::vector<TensorView>& tensors,
                                       const std::map<std::string, std::string>& metadata);

/// Writes tensors (data in the given order, streamed) to `path` by temp file, fsync, rename,
/// directory fsync. An existing file is replaced atomically or left untouched on error. What is
/// still to be made (tensor_source.h) is made when its turn comes.
/// invalid_argument: a name twice or not UTF-8, bytes that do not match shape and dtype, or a
/// packed matrix behind tensors that fill no multiple of 64 bytes.
Status write_safetensors(const std::string& path, const std::vector<TensorView>& tensors,
                         const std::map<std::string, std::string>& metadata,
                         Env& env = Env::system());

}  // namespace chimera
