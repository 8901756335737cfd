// The loops over elements are here, compiled for vectors.
#include <sys/mman.h>
#include <unistd.h>

#include <cstring>

#include "experts/assembly/tensor_data.h"

namespace chimera {
namespace {

template <class Unit, class Convert>
void widen_units(const std::byte* from, int64_t step, int64_t n, float* out, Convert convert) {
  for (int64_t i = 0; i < n; ++i) {
    Unit unit;
    std::memcpy(&unit, from + i * step * static_cast<int64_t>(sizeof(Unit)), sizeof(Unit));
    out[i] = convert(unit);
  }
}

void widen_run(DType dtype, const std::byte* from, int64_t step, int64_t n, float* out) {
  const auto same = [](float value) { return value; };
  const auto bf16 = [](uint16_t value) { return bf16_to_f32(value); };
  if (dtype == DType::kF32 && step == 1) {
    std::memcpy(out, from, static_cast<size_t>(n) * sizeof(float));
  } else if (dtype == DType::kF32) {
    widen_units<float>(from, step, n, out, same);
  } else if (dtype == DType::kBF16 && step == 1) {
    widen_units<uint16_t>(from, 1, n, out, bf16);  // a constant step becomes vector code
  } else if (dtype == DType::kBF16) {
    widen_units<uint16_t>(from, step, n, out, bf16);
  } else {
    widen_units<uint16_t>(from, step, n, out, f16_to_f32);
  }
}

StoredPart matrix_part(const TensorView& tensor) {
  const int64_t cols = tensor.shape.empty() ? 1 : tensor.shape.back();
  const int64_t rows = cols == 0 ? 0 : tensor.elements() / cols;
  return {tensor, {rows, cols, 0, cols, 1}, tensor.shape};
}

}  // namespace

TensorData::TensorData(const TensorView& tensor)
    : part_(matrix_part(tensor)), shape_(tensor.shape) {
  opaque_ =
      tensor.dtype != DType::kF32 && tensor.dtype != DType::kF16 && tensor.dtype != DType::kBF16;
}

TensorData::TensorData(StoredPart part) : part_(std::move(part)), shape_(part_.shape) {
  if (shape_.size() != 1) return;
  // A vector is one row.
  Strides& at = part_.at;
  at = {1, at.rows, at.offset, at.rows, at.row_step};
}

TensorData::TensorData(QuantMatrix matrix) : shape_{matrix.rows, matrix.cols} {
  part_.tensor.dtype = matrix.format == QuantMatrix::Format::kFp8 ? DType::kF8E4M3 : DType::kU8;
  part_.at = {matrix.rows, matrix.cols, 0, matrix.cols, 1};
  quant_ = std::move(matrix);
}

std::span<const std::byte> TensorData::span_of(int64_t begin, int64_t end) const {
  if (quant_) {
    return {quant_->codes + begin * quant_->code_step,
            static_cast<size_t>((end - begin) * quant_->code_step)};
  }
  const auto unit = static_cast<int64_t>(unit_bytes(part_.tensor.dtype));
  const std::byte* data = part_.tensor.bytes.data();
  if (!part_.at.dense()) {  // interleaved with others: all of the slice, once its last row is done
    return end == rows() ? part_.tensor.bytes : std::span<const std::byte>();
  }
  return {data + (part_.at.offset + begin * cols()) * unit,
          static_cast<size_t>((end - begin) * cols() * unit)};
}

uint64_t TensorData::stored_bytes(int64_t rows) const {
  if (quant_ && quant_->format == QuantMatrix::Format::kMxfp4)
    return static_cast<uint64_t>(rows * cols() / 2);
  return static_cast<uint64_t>(rows * cols()) * unit_bytes(part_.tensor.dtype);
}

void TensorData::widen(int64_t begin, int64_t end, float* out) const {
  if (quant_) return quant_->widen(begin, end, out);
  const auto unit = static_cast<int64_t>(unit_bytes(part_.tensor.dtype));
  const Strides& at = part_.at;
  const std::byte* data = part_.tensor.bytes.data() + at.offset * unit;
  if (at.dense()) {
    return widen_run(part_.tensor.dtype, data + begin * at.cols * unit, 1, (end - begin) * at.cols,
                     out);
  }
  for (int64_t row = begin; row < end; ++row, out += at.cols) {
    widen_run(part_.tensor.dtype, data + row * at.row_step * unit, at.col_step, at.cols, out);
  }
}

void TensorData::raw(int64_t begin, int64_t end, std::byte* out) const {
  const size_t unit = unit_bytes(part_.tensor.dtype);
  const Strides& at = part_.at;
  const std::byte* data = part_.tensor.bytes.data() + static_cast<size_t>(at.offset) * unit;
  if (at.dense()) {
    std::memcpy(out, data + static_cast<size_t>(begin * at.cols) * unit,
                static_cast<size_t>((end - begin) * at.cols) * unit);
    return;
  }
  for (int64_t row = begin; row < end; ++row) {
    for (int64_t col = 0; col < at.cols; ++col, out += unit) {
      std::memcpy(out, data + static_cast<size_t>(row * at.row_step + col * at.col_step) * unit,
                  unit);
    }
  }
}

namespace {

void advise(std::span<const std::byte> bytes, int advice, bool inside) {
  const auto page = static_cast<uintptr_t>(::sysconf(_SC_PAGESIZE));
  auto begin = reinterpret_cast<uintptr_t>(bytes.data());
  auto end = begin + bytes.size();
  begin = inside ? (begin + page - 1) / page * page : begin / page * page;
  if (inside) end = end / page * page;
  if (begin < end) ::madvise(reinterpret_cast<void*>(begin), end - begin, advice);
}

}  // namespace

void release_pages(std::span<const std::byte> bytes) {
  advise(bytes, MADV_DONTNEED, true);  // neighbours share the outer pages
}

void TensorData::release(int64_t begin, int64_t end) const { release_pages(span_of(begin, end)); }

void TensorData::prefetch(int64_t begin, int64_t end) const {
  advise(span_of(begin, end), MADV_WILLNEED, false);
}

bool all_finite(const float* values, size_t n) {
  uint32_t bad = 0;
  for (size_t i = 0; i < n; ++i) {
    uint32_t bits;
    std::memcpy(&bits, values + i, sizeof(bits));
    bad |= (bits & 0x7f80'0000u) == 0x7f80'0000u ? 1u : 0u;
  }
  return bad == 0;
}

}  // namespace chimera
