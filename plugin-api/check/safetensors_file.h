// Reader of .safetensors files for chimera.weights/1 and for references.
//
// Made for untrusted files: every offset is checked. Thread safety: pure functions, values.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

namespace chimera::check {

struct FileTensor {
  std::string name;
  uint32_t dtype = 0;  // CHIMERA_DTYPE_*; 0: one that the ABI has no number for
  std::vector<uint64_t> shape;
  uint64_t begin = 0, size = 0;  // of its bytes in TensorFile::bytes
};

struct TensorFile {
  std::string path;
  std::string bytes;
  std::vector<FileTensor> tensors;  // ascending by name

  std::string_view data(const FileTensor& t) const {
    return std::string_view(bytes).substr(t.begin, t.size);
  }
  const FileTensor* find(std::string_view name) const;
};

/// Bytes of one element of a CHIMERA_DTYPE_*; 0 for any other number.
uint64_t dtype_size(uint32_t dtype);

/// A text instead when the file is malformed.
std::variant<TensorFile, std::string> parse_tensor_file(std::string path, std::string bytes);

/// Row `row` of a rank-2 F32, BF16 or F16 tensor, as doubles.
std::vector<double> tensor_row(const TensorFile& file, const FileTensor& tensor, uint64_t row);

}  // namespace chimera::check
