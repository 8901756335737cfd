// Reader of the safetensors format for untrusted files.
//
// The file is validated completely before anything is allocated for it: header length against cap
// and file size, a strict JSON object, dtype and shape products in checked arithmetic, data ranges
// contiguous from 0 to the end of the file without hole or overlap. Only regular files are opened.
//
// Residency decides what happens when the file changes on disk afterwards (reliability R21):
// kCopied reads the data into private anonymous memory, so later truncation or overwriting is
// invisible - what the daemon uses; kMapped maps the file and is for short-lived offline tools.
//
// Thread safety: immutable after open. Views keep the memory alive through `owner`.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "backbone/status.h"
#include "backbone/tensor.h"

namespace chimera {

enum class Residency : uint8_t { kCopied, kMapped };

class SafetensorsFile {
 public:
  /// Longest accepted JSON header, bytes.
  static constexpr uint64_t kMaxHeaderBytes = 16u << 20;

  static Result<SafetensorsFile> open(const std::string& path, Residency residency);
  /// Validates an image in memory (fuzzing, tests). The views borrow `image`.
  static Result<SafetensorsFile> parse(std::span<const std::byte> image, std::string label);

  const std::string& path() const { return path_; }
  const std::vector<TensorView>& tensors() const { return tensors_; }  // in data order
  /// Null when absent.
  const TensorView* find(std::string_view name) const;
  const std::map<std::string, std::string>& metadata() const { return metadata_; }
  /// Size of the file, bytes.
  uint64_t file_bytes() const { return file_bytes_; }

 private:
  std::string path_;
  std::vector<TensorView> tensors_;
  std::map<std::string, size_t, std::less<>> index_;
  std::map<std::string, std::string> metadata_;
  uint64_t file_bytes_ = 0;
  friend class SafetensorsParser;
};

/// Writes tensors (in the given order) to `path` by temp file, fsync, rename, directory fsync.
/// An existing file is replaced atomically or left untouched on error.
Status write_safetensors(const std::string& path, const std::vector<TensorView>& tensors,
                         const std::map<std::string, std::string>& metadata);

}  // namespace chimera
