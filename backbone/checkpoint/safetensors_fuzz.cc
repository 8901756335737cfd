// Fuzz target of the safetensors reader. Whatever is accepted must keep the promises that the rest
// of the engine relies on; whatever is refused must say which file.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <vector>

#include "backbone/checkpoint/checkpoint.h"
#include "backbone/checkpoint/safetensors.h"
#include "compute/tensor/packed_tensor.h"

extern "C" size_t LLVMFuzzerMutate(uint8_t* data, size_t size, size_t max_size);

namespace {

using chimera::DType;
using chimera::Precision;
using chimera::SafetensorsFile;
using chimera::TensorView;

void require(bool promise) {
  if (!promise) std::abort();
}

/// Reads every byte of the result, so that AddressSanitizer checks the range.
void touch(const chimera::Matrix& m) {
  const auto* bytes = static_cast<const unsigned char*>(m.data);
  unsigned sum = 0;
  for (size_t i = 0; i < m.bytes(); ++i) sum += bytes[i];
  volatile unsigned sink = sum;
  (void)sink;
}

void convert(const TensorView& t) {
  for (const Precision p : {Precision::kF32, Precision::kBF16, Precision::kQ8, Precision::kQ4}) {
    if (!chimera::is_packed_type(t.dtype) && chimera::packed_format(p)) continue;  // slow
    if (t.shape.size() == 2) {
      const auto m = chimera::to_matrix(t, t.shape[0], t.shape[1], p);
      if (m.ok()) touch(*m);
    }
    if (chimera::is_packed_type(t.dtype)) require(chimera::first_non_finite_packed(t) >= -1);
    if (t.shape.size() == 3 && t.shape[0] > 0) {
      const auto m = chimera::slice_matrix(t, t.shape[0] - 1, 0, t.shape[1], t.shape[2], p);
      if (m.ok()) touch(*m);
    }
  }
  if (t.shape.size() == 1) require(!chimera::to_f32(t, t.shape[0] + 1).ok());
}

void check_file(const SafetensorsFile& file, std::span<const std::byte> image) {
  const std::byte* next = nullptr;
  for (const TensorView& t : file.tensors()) {
    require(t.shape.size() <= 8);
    const std::optional<int64_t> bytes = chimera::dense_bytes(t.dtype, t.shape);
    require(bytes && static_cast<size_t>(*bytes) == t.bytes.size());
    require(t.bytes.data() >= image.data() + 10);
    require(t.bytes.data() + t.bytes.size() <= image.data() + image.size());
    require(next == nullptr || t.bytes.data() == next);  // neither hole nor overlap
    const bool packed = chimera::is_packed_type(t.dtype);
    next = t.bytes.data() + (packed ? (t.bytes.size() + 63) / 64 * 64 : t.bytes.size());
    require(file.find(t.name) == &t);  // so no name is there twice
    convert(t);
  }
  require(next == nullptr || next == image.data() + image.size());
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto image = std::as_bytes(std::span(data, size));
  const auto file = SafetensorsFile::parse(image, "input");
  if (file.ok()) {
    check_file(*file, image);
  } else {
    require(file.status().message().starts_with("input: "));
  }
  return 0;
}

/// Mutates the header text alone and puts the right length before it: a reader that checks the
/// length first would otherwise see little of the mutations.
extern "C" size_t LLVMFuzzerCustomMutator(uint8_t* data, size_t size, size_t max_size,
                                          unsigned seed) {
  uint64_t length = 0;
  if (size >= 8) std::memcpy(&length, data, 8);
  if (seed % 4 == 0 || size < 8 || length > size - 8) return LLVMFuzzerMutate(data, size, max_size);
  const size_t header = static_cast<size_t>(length);
  const std::vector<uint8_t> tail(data + 8 + header, data + size);
  const uint64_t mutated = LLVMFuzzerMutate(data + 8, header, max_size - 8 - tail.size());
  std::memcpy(data, &mutated, 8);
  if (!tail.empty()) std::memcpy(data + 8 + mutated, tail.data(), tail.size());
  return 8 + static_cast<size_t>(mutated) + tail.size();
}
