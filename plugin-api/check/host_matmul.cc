// chimera.matmul/1 in the simplest form that keeps its promise: one dot product per output.
#include <bit>
#include <cmath>
#include <cstring>

#include "check/host_state.h"

namespace chimera::check {
namespace {

constexpr uint64_t kMaxElements = uint64_t{1} << 31;

float element(const chimera_matrix_source& s, uint64_t row, uint64_t col) {
  const auto* base = static_cast<const unsigned char*>(s.data_borrowed) + row * s.row_stride;
  if (s.dtype == CHIMERA_DTYPE_F32) {
    float value = 0;
    std::memcpy(&value, base + col * 4, 4);
    return value;
  }
  if (s.dtype == CHIMERA_DTYPE_BF16) {
    uint16_t bits = 0;
    std::memcpy(&bits, base + col * 2, 2);
    return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
  }
  return s.scales_borrowed[row] * static_cast<float>(std::bit_cast<int8_t>(base[col]));
}

int32_t pack(const chimera_host* host, const chimera_matrix_source* source,
             chimera_packed_matrix** out) {
  ServiceCall call(host, "chimera.matmul/1 pack", ServiceCall::kControl);
  const chimera_matrix_source& s = *source;
  *out = nullptr;
  if (!call.allowed) return CHIMERA_FAILED_PRECONDITION;
  if (s.dtype != CHIMERA_DTYPE_F32 && s.dtype != CHIMERA_DTYPE_BF16 &&
      s.dtype != CHIMERA_DTYPE_I8) {
    return CHIMERA_UNIMPLEMENTED;
  }
  if (s.rows == 0 || s.cols == 0 || s.rows > kMaxElements / s.cols ||
      (s.dtype == CHIMERA_DTYPE_I8 && s.scales_borrowed == nullptr)) {
    return CHIMERA_INVALID_ARGUMENT;
  }
  const uint64_t header = 64;
  void* block = host_allocate(call, header + s.rows * s.cols * sizeof(float), CHIMERA_ALIGNMENT);
  if (block == nullptr) return CHIMERA_RESOURCE_EXHAUSTED;
  auto* data = reinterpret_cast<float*>(static_cast<unsigned char*>(block) + header);
  for (uint64_t r = 0; r < s.rows; ++r) {
    for (uint64_t c = 0; c < s.cols; ++c) data[r * s.cols + c] = element(s, r, c);
  }
  *out = new (block) chimera_packed_matrix{s.rows, s.cols, data};
  return CHIMERA_OK;
}

void release(const chimera_host* host, chimera_packed_matrix* matrix) {
  ServiceCall call(host, "chimera.matmul/1 release", ServiceCall::kControl);
  if (matrix != nullptr) host_release(call, matrix);
}

int32_t multiply(const chimera_host* host, const chimera_packed_matrix* m, const float* x,
                 uint64_t x_stride, uint32_t n_rows, uint64_t begin, uint64_t end, float* y,
                 uint64_t y_stride) {
  ServiceCall call(host, "chimera.matmul/1 multiply", ServiceCall::kForward | ServiceCall::kBody);
  if (!call.allowed) return CHIMERA_FAILED_PRECONDITION;
  if (begin > end || end > m->rows || x_stride % 4 != 0 || y_stride % 4 != 0) {
    return CHIMERA_INVALID_ARGUMENT;
  }
  for (uint32_t r = 0; r < n_rows; ++r) {
    const float* row = x + r * (x_stride / 4);
    float* out = y + r * (y_stride / 4);
    for (uint64_t i = begin; i < end; ++i) {
      const float* w = m->data + i * m->cols;
      float sum = 0;
      for (uint64_t j = 0; j < m->cols; ++j) sum += row[j] * w[j];
      out[i] = sum;
    }
  }
  return CHIMERA_OK;
}

void swiglu(const chimera_host* host, float* gate, const float* up, uint64_t n) {
  ServiceCall call(host, "chimera.matmul/1 swiglu", ServiceCall::kForward | ServiceCall::kBody);
  for (uint64_t i = 0; i < n; ++i) gate[i] = gate[i] / (1.0f + std::exp(-gate[i])) * up[i];
}

}  // namespace

chimera_host_matmul matmul_service() {
  return {sizeof(chimera_host_matmul), 0, pack, release, multiply, swiglu};
}

}  // namespace chimera::check
