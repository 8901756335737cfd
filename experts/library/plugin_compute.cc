// chimera.parallel/1 and chimera.matmul/1.
#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <vector>

#include "compute/tensor/memory.h"
#include "experts/library/crash_record.h"
#include "experts/library/plugin_services.h"

/// What chimera.matmul/1 hands out. I8 is widened to F32 when it is packed.
struct chimera_packed_matrix {
  const chimera::PluginHost* owner;
  chimera::Matrix matrix;
};

namespace chimera {
namespace {

// Far above any expert; keeps products of sizes inside 64 bits.
constexpr uint64_t kMaxDimension = 1 << 24;

void copy_rows(const chimera_matrix_source& source, std::byte* to) {
  const auto* from = static_cast<const std::byte*>(source.data_borrowed);
  const uint64_t element = source.dtype == CHIMERA_DTYPE_F32 ? 4 : 2;
  for (uint64_t row = 0; row < source.rows; ++row, from += source.row_stride) {
    std::memcpy(to + row * source.cols * element, from, source.cols * element);
  }
}

void widen_rows(const chimera_matrix_source& source, float* to) {
  const auto* from = static_cast<const int8_t*>(source.data_borrowed);
  for (uint64_t row = 0; row < source.rows; ++row, from += source.row_stride) {
    for (uint64_t col = 0; col < source.cols; ++col) {
      *to++ = source.scales_borrowed[row] * static_cast<float>(from[col]);
    }
  }
}

}  // namespace

int32_t PluginHost::pack(const chimera_matrix_source& source, chimera_packed_matrix** out) {
  const bool i8 = source.dtype == CHIMERA_DTYPE_I8;
  if (!i8 && source.dtype != CHIMERA_DTYPE_F32 && source.dtype != CHIMERA_DTYPE_BF16) {
    return CHIMERA_UNIMPLEMENTED;
  }
  const uint64_t stored = i8 ? 1 : source.dtype == CHIMERA_DTYPE_F32 ? 4 : 2;
  if (source.rows == 0 || source.cols == 0 || source.rows > kMaxDimension ||
      source.cols > kMaxDimension || source.data_borrowed == nullptr ||
      source.row_stride < source.cols * stored || i8 != (source.scales_borrowed != nullptr)) {
    return CHIMERA_INVALID_ARGUMENT;
  }
  const uint64_t bytes = source.rows * source.cols * (stored == 2 ? 2 : 4);
  if (!charge(bytes)) return CHIMERA_RESOURCE_EXHAUSTED;
  const std::shared_ptr<std::byte[]> data = allocate_weights(bytes);
  if (data == nullptr) {
    used_.fetch_sub(bytes);
    return CHIMERA_RESOURCE_EXHAUSTED;
  }
  if (i8) {
    widen_rows(source, reinterpret_cast<float*>(data.get()));
  } else {
    copy_rows(source, data.get());
  }
  Matrix matrix{data.get(), stored == 2 ? WeightFormat::kBF16 : WeightFormat::kF32,
                static_cast<int64_t>(source.rows), static_cast<int64_t>(source.cols), data};
  *out = new chimera_packed_matrix{this, std::move(matrix)};
  const MutexLock guard(memory_mutex_);
  matrices_.emplace(*out, bytes);
  return CHIMERA_OK;
}

void PluginHost::release_matrix(chimera_packed_matrix* matrix) {
  const MutexLock guard(memory_mutex_);
  const auto found = matrices_.find(matrix);
  if (found == matrices_.end()) return;
  used_.fetch_sub(found->second);
  delete found->first;
  matrices_.erase(found);
}

int32_t PluginServices::parallel_run(const chimera_host* host, uint32_t count,
                                     chimera_parallel_body body, void* context) {
  PluginCallScope* call = call_of(host);
  if (call == nullptr || call->pool_ == nullptr || call->in_body_) {
    return CHIMERA_FAILED_PRECONDITION;
  }
  if (body == nullptr) return CHIMERA_INVALID_ARGUMENT;
  // Each chunk of the pool is one worker that takes the next index until none is left: so a worker
  // number is never in use twice at a time, whichever threads run the chunks.
  std::atomic<uint32_t> next{0};
  const int64_t workers = std::min(count, call->workers_);
  const CrashScope* const blamed = CrashScope::current();
  call->pool_->parallel_for(workers, 1, [&](int64_t begin, int64_t end) {
    PluginCallScope inner(of(host), CHIMERA_ROLE_WORKER);
    inner.in_body_ = true;
    const CrashScope helping(blamed);
    for (int64_t worker = begin; worker < end; ++worker) {
      for (uint32_t i; (i = next.fetch_add(1, std::memory_order_relaxed)) < count;) {
        body(context, i, static_cast<uint32_t>(worker));
      }
    }
  });
  return CHIMERA_OK;
}

int32_t PluginServices::matmul_pack(const chimera_host* host, const chimera_matrix_source* source,
                                    chimera_packed_matrix** out) {
  if (source == nullptr || out == nullptr || source->struct_size < sizeof(*source)) {
    return CHIMERA_INVALID_ARGUMENT;
  }
  *out = nullptr;
  return of(host).pack(*source, out);
}

void PluginServices::matmul_release(const chimera_host* host, chimera_packed_matrix* matrix) {
  of(host).release_matrix(matrix);
}

int32_t PluginServices::matmul_multiply(const chimera_host* host,
                                        const chimera_packed_matrix* matrix, const float* x,
                                        uint64_t x_stride, uint32_t n_rows, uint64_t begin,
                                        uint64_t end, float* y, uint64_t y_stride) {
  if (matrix == nullptr || matrix->owner != &of(host)) return CHIMERA_INVALID_ARGUMENT;
  const Matrix& w = matrix->matrix;
  if (begin > end || end > static_cast<uint64_t>(w.rows) || x_stride % 4 != 0 ||
      y_stride % 4 != 0 || x_stride / 4 < static_cast<uint64_t>(w.cols) ||
      y_stride / 4 < static_cast<uint64_t>(w.rows)) {
    return CHIMERA_INVALID_ARGUMENT;
  }
  static const Kernels& kernels = best_kernels();
  kernels.matmul(x, n_rows, static_cast<int64_t>(x_stride / 4), w, static_cast<int64_t>(begin),
                 static_cast<int64_t>(end), y, static_cast<int64_t>(y_stride / 4));
  return CHIMERA_OK;
}

void PluginServices::matmul_swiglu(const chimera_host*, float* gate, const float* up, uint64_t n) {
  static const Kernels& kernels = best_kernels();
  kernels.swiglu(gate, up, static_cast<int64_t>(n));
}

}  // namespace chimera
