#include "compute/tensor/convert.h"

#include <array>
#include <cstring>

#include "base/quote.h"
#include "compute/tensor/block_types.h"
#include "compute/tensor/k_blocks.h"
#include "compute/tensor/k_layout.h"
#include "compute/tensor/memory.h"
#include "compute/tensor/pack.h"
#include "compute/tensor/packed_tensor.h"
#include "compute/tensor/repack.h"
#include "compute/tensor/tensor_source.h"

namespace chimera {
namespace {

bool is_aligned(const void* data, size_t alignment) {
  return reinterpret_cast<uintptr_t>(data) % alignment == 0;
}

template <class T>
T load(const std::byte* bytes, size_t i) {  // whatever the alignment
  T value;
  std::memcpy(&value, bytes + i * sizeof(T), sizeof(T));
  return value;
}

/// Element `i` of data of dtype F32, F16 or BF16, exactly.
template <DType dtype>
float element(const std::byte* bytes, size_t i) {
  if constexpr (dtype == DType::kF32) return load<float>(bytes, i);
  if constexpr (dtype == DType::kF16) return f16_to_f32(load<uint16_t>(bytes, i));
  if constexpr (dtype == DType::kBF16) return bf16_to_f32(load<uint16_t>(bytes, i));
}

template <DType dtype>
void widen_all(const std::byte* from, size_t n, float* to) {
  for (size_t i = 0; i < n; ++i) to[i] = element<dtype>(from, i);
}

template <DType dtype>
void round_all(const std::byte* from, size_t n, uint16_t* to) {
  for (size_t i = 0; i < n; ++i) to[i] = f32_to_bf16(element<dtype>(from, i));
}

void widen(const std::byte* from, DType dtype, size_t n, float* to) {
  if (dtype == DType::kF32 && n > 0) std::memcpy(to, from, n * sizeof(float));
  if (dtype == DType::kF16) widen_all<DType::kF16>(from, n, to);
  if (dtype == DType::kBF16) widen_all<DType::kBF16>(from, n, to);
  if (is_block_type(dtype)) widen_blocks(dtype, from, static_cast<int64_t>(n), to);
}

/// Blocks rounded to BF16, one after another.
void round_blocks(const std::byte* from, DType dtype, size_t n, uint16_t* to) {
  const DTypeUnit unit = unit_of(dtype);
  std::array<float, 256> values;
  for (size_t at = 0; at < n; at += static_cast<size_t>(unit.elements), from += unit.bytes) {
    widen_blocks(dtype, from, unit.elements, values.data());
    for (int64_t i = 0; i < unit.elements; ++i)
      to[at + static_cast<size_t>(i)] = f32_to_bf16(values[static_cast<size_t>(i)]);
  }
}

Status wrong_shape(const TensorView& t, const std::string& expected) {
  return Status(Code::kDataCorrupt, "tensor " + quote(t.name) + " has shape " +
                                        shape_string(t.shape) + ", expected " + expected);
}

/// rows x cols elements of `t` from element `first` on, row-major; the range has been checked.
Result<Matrix> convert_rows(const TensorView& t, int64_t first, int64_t rows, int64_t cols,
                            Precision p) {
  CHIMERA_RETURN_IF_ERROR(check_number_dtype(t));
  const auto n = static_cast<size_t>(rows * cols);
  const DTypeUnit unit = unit_of(t.dtype);
  const std::byte* from = t.bytes.data() + first / unit.elements * unit.bytes;
  const WeightFormat format = kept_format(t.dtype, p);
  const bool keep = is_stored_as(t.dtype, format);
  Matrix m{from, format, rows, cols, t.owner};
  if (keep && is_aligned(from, static_cast<size_t>(unit.bytes))) return m;

  const std::shared_ptr<std::byte[]> memory = allocate_weights(m.bytes());
  if (memory == nullptr) return no_memory("tensor " + quote(t.name), m.bytes());
  if (keep) {
    if (n > 0) std::memcpy(memory.get(), from, m.bytes());
  } else if (format == WeightFormat::kF32) {
    widen(from, t.dtype, n, reinterpret_cast<float*>(memory.get()));
  } else if (is_block_type(t.dtype)) {
    round_blocks(from, t.dtype, n, reinterpret_cast<uint16_t*>(memory.get()));
  } else if (t.dtype == DType::kF32) {
    round_all<DType::kF32>(from, n, reinterpret_cast<uint16_t*>(memory.get()));
  } else {
    round_all<DType::kF16>(from, n, reinterpret_cast<uint16_t*>(memory.get()));
  }
  m.data = memory.get();
  m.owner = memory;
  return m;
}

Result<Matrix> convert(const TensorView& t, int64_t first, int64_t rows, int64_t cols,
                       Precision p) {
  const std::optional<WeightFormat> format = packed_format(p);
  if (t.source != nullptr) {
    const Result<TensorView> made = loaded(t);
    return made.ok() ? convert(*made, first, rows, cols, p) : made.status();
  }
  const DTypeUnit unit = unit_of(t.dtype);
  if (cols % unit.elements != 0 ||
      first % unit.elements != 0)  // blocks would be read beyond the end
    return wrong_shape(t, "rows of whole blocks of " + std::to_string(unit.elements));
  if (!format) return convert_rows(t, first, rows, cols, p);
  const std::byte* from = t.bytes.data() + first / unit.elements * unit.bytes;
  const WeightFormat kept = kept_format(t.dtype, p);
  if (is_k_format(kept)) return repack_k_blocks(kept, unit.bytes, from, rows, cols);
  if (repacks_exactly(t.dtype, kept)) return repack_blocks(t.dtype, from, rows, cols, kept);
  if (kept == WeightFormat::kMXFP4 || repacks_integers(t.dtype, kept)) {
    Result<std::optional<Matrix>> packed = kept == WeightFormat::kMXFP4
                                               ? repack_mxfp4_blocks(from, rows, cols)
                                               : repack_integers(t.dtype, from, rows, cols, kept);
    if (!packed.ok()) return packed.status();
    if (*packed) return std::move(**packed);
  }
  Result<Matrix> wide = convert_rows(t, first, rows, cols, Precision::kF32);
  return wide.ok() ? pack_matrix(*wide, *format) : wide;
}

}  // namespace

Status check_number_dtype(const TensorView& t) {
  const bool plain = t.dtype == DType::kF32 || t.dtype == DType::kF16 || t.dtype == DType::kBF16;
  if (plain || is_block_type(t.dtype)) return Status();
  return Status(Code::kUnimplemented,
                "tensor " + quote(t.name) + " is stored as " + std::string(dtype_name(t.dtype)) +
                    ", expected F32, F16 or BF16",
                is_packed_type(t.dtype) ? "Use what it was packed from."
                                        : "Convert the weights to one of these.");
}

namespace {

/// What is stored in blocks that a format holds number for number stays in them, unless it has more
/// bits than were asked for.
WeightFormat kept_packed(DType stored, WeightFormat asked) {
  if (stored == DType::kIQ4_NL) return WeightFormat::kIQ4_NL;
  if (stored == DType::kMXFP4) return WeightFormat::kMXFP4;
  const std::optional<WeightFormat> k = k_format(stored);
  return k && (asked == WeightFormat::kQ8 || *k <= WeightFormat::kQ4_K) ? *k : asked;
}

}  // namespace

WeightFormat kept_format(DType stored, Precision p) {
  switch (p) {
    case Precision::kF32:  // no wider form of two bytes says more
      if (stored == DType::kBF16) return WeightFormat::kBF16;
      return stored == DType::kF16 ? WeightFormat::kF16 : WeightFormat::kF32;
    case Precision::kBF16:
      return WeightFormat::kBF16;
    case Precision::kQ8:
    case Precision::kQ4:
      return kept_packed(stored, *packed_format(p));
  }
  return WeightFormat::kF32;
}

bool is_stored_as(DType stored, WeightFormat format) {
  return (stored == DType::kF32 && format == WeightFormat::kF32) ||
         (stored == DType::kF16 && format == WeightFormat::kF16) ||
         (stored == DType::kBF16 && format == WeightFormat::kBF16);
}

WeightFormat charged_format(DType stored, Precision p) {
  const WeightFormat kept = kept_format(stored, p);
  return kept == WeightFormat::kMXFP4 ? *packed_format(p) : kept;
}

Status check_packed_for(const TensorView& t, Precision p) {
  if (!is_packed_type(t.dtype)) return {};
  const WeightFormat format = format_of_packed(t.dtype);
  if (runs_packed(format, p)) return {};
  return Status(Code::kFailedPrecondition,
                "tensor " + quote(t.name) + " is packed as " + std::string(info_of(format).name) +
                    ", expected weights for precision " + kPrecisionNames.text(p),
                "Choose the precision that it was packed for, or what it was packed from.");
}

Result<Matrix> to_matrix(const TensorView& t, int64_t rows, int64_t cols, Precision p) {
  if (t.shape.size() != 2 || t.shape[0] != rows || t.shape[1] != cols) {
    return wrong_shape(t, shape_string(std::array{rows, cols}));
  }
  CHIMERA_RETURN_IF_ERROR(check_packed_for(t, p));
  if (is_packed_type(t.dtype)) return packed_matrix(t);
  return convert(t, 0, rows, cols, p);
}

Result<Matrix> slice_matrix(const TensorView& t, int64_t i, int64_t row0, int64_t rows,
                            int64_t cols, Precision p) {
  const bool fits = t.shape.size() == 3 && i >= 0 && i < t.shape[0] && row0 >= 0 && rows >= 0 &&
                    row0 <= t.shape[1] && rows <= t.shape[1] - row0 && cols == t.shape[2];
  if (!fits) {
    return wrong_shape(t, "a stack that holds rows " + std::to_string(row0) + " to " +
                              std::to_string(row0) + " + " + std::to_string(rows) + " of matrix " +
                              std::to_string(i) + ", " + std::to_string(cols) + " columns wide");
  }
  return convert(t, (i * t.shape[1] + row0) * cols, rows, cols, p);
}

Result<std::vector<float>> to_f32(const TensorView& t, int64_t n) {
  if (t.shape.size() != 1 || (n >= 0 && t.shape[0] != n)) {
    return wrong_shape(t, n >= 0 ? shape_string(std::array{n}) : std::string("one dimension"));
  }
  CHIMERA_RETURN_IF_ERROR(check_number_dtype(t));
  if (t.source != nullptr) {
    const Result<TensorView> made = loaded(t);
    return made.ok() ? to_f32(*made, n) : made.status();
  }
  std::vector<float> values(static_cast<size_t>(t.shape[0]));
  widen(t.bytes.data(), t.dtype, values.size(), values.data());
  return values;
}

}  // namespace chimera
