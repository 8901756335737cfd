// Reader of the GGUF container (version 3, little-endian); made for untrusted files.
//
//   "GGUF", version u32, tensors u64, metadata entries u64
//   entries       key, type u32, value; text is a length u64 and bytes, a list its type u32 and
//   count
//                 u64 before its values
//   tensor infos  name, dimensions u32, each u64 (innermost first), type u32, offset u64
//   data          from the next multiple of general.alignment (32 without it) on, every tensor at
//   its
//                 offset from there
//
// Nothing is believed: every count is bounded by the bytes that are left before anything is
// allocated for it, every product is checked, no dimension is zero, a row is whole blocks, tensors
// follow one another in the order of their infos with nothing but padding in between, and the file
// ends with the last one. Keys and names are unique UTF-8.
//
// Thread safety: immutable after open. Views keep the memory alive.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "backbone/files/tensor_file.h"
#include "base/io/env.h"
#include "base/status.h"

namespace chimera {

/// A metadata value. Integers of all widths become int64_t, numbers double.
using GgufValue = std::variant<bool, int64_t, double, std::string, std::vector<int64_t>,
                               std::vector<double>, std::vector<std::string>>;
using GgufMetadata = std::map<std::string, GgufValue, std::less<>>;

class GgufFile : public TensorFile {
 public:
  /// Metadata and tensor infos together, bytes: vocabularies of 250 thousand tokens take 15 MB.
  static constexpr uint64_t kMaxHeaderBytes = 128u << 20;

  /// Errors: of the system; invalid_argument when it is no regular file; unimplemented, naming it,
  /// for another version, byte order or tensor type; else data_corrupt. Shapes of the tensors are
  /// outermost first.
  static Result<GgufFile> open(const std::string& path, Residency residency,
                               Env& env = Env::system());
  /// Validates an image in memory (fuzzing, tests). The views borrow `image`.
  static Result<GgufFile> parse(std::span<const std::byte> image, std::string label);

  const GgufMetadata& metadata() const { return metadata_; }

 private:
  GgufMetadata metadata_;
};

/// Whether `path` is a regular file that begins as GGUF does. False for what cannot be read.
bool is_gguf_file(const std::string& path);

}  // namespace chimera
