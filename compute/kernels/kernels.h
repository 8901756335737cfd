// The compute kernels behind one small interface, chosen once at run time.
//
// Every variant is *batch invariant and bitwise equal*: an output element depends on its own row
// and weights only, in one fixed order of operations - 16 partial sums, lane j taking the inputs
// k = j (mod 16) by fused multiply-add, then folded 8, 4, 2, 1 - whatever the number of rows, the
// tiling or the instruction set. That is what makes a greedy stream independent of who shares its
// batch (design invariant 5), and lets the scalar variant serve as the reference of the others.
//
// Thread safety: all functions are pure; callers give disjoint outputs.
#pragma once

#include <cstdint>
#include <string_view>

#include "compute/tensor/tensor.h"

namespace chimera {

enum class Isa : uint8_t { kScalar, kAvx2, kAvx512 };

/// Positions that a query row sees.
struct VisibleRange {
  int64_t first;  // absolute (window or chunk)
  int64_t count;  // one past the last
};

/// Query rows of one sequence over its cache. Query head h uses key/value head
/// h / (heads / kv_heads); with latent attention all share one, whose values are the first v_dim
/// channels of its keys.
struct AttentionArgs {
  const float* q;               // [rows, heads, head_dim], rotated
  int64_t rows;                 // an output has the same bits whatever their number
  const VisibleRange* visible;  // [rows], none empty; from row to row neither end goes down
  const float* const* k;  // block pointers: k[b] is [block_tokens] rows of k_stride floats, in
                          // which key/value head g begins at g * head_dim
  const float* const* v;  // same with v_stride and g * v_dim; may be `k`
  int64_t block_tokens;
  int64_t heads, kv_heads;
  int64_t head_dim, v_dim;
  int64_t k_stride, v_stride;
  float scale;
  const float* sinks = nullptr;  // [heads], or null: logits that take part in the softmax's sum and
                                 // add no value, not scaled
  float* scratch;                // attention_scratch(args) floats
  float* out;                    // [rows, heads, v_dim]
};

/// Queries - rows times heads that share a key/value head - that one read of the cache serves. With
/// more, their scores would outgrow a second-level cache from 4 Ki positions on (24 x 16 KiB).
inline constexpr int64_t kAttentionQueries = 24;
/// Floats of scratch memory of a call; q, k, v, scratch and out do not matter.
int64_t attention_scratch(const AttentionArgs& args);

/// Function table of one instruction set. Shapes: x [m, cols] with row stride ldx, y [m, rows]
/// with row stride ldy (all in elements); weights [rows, cols].
struct Kernels {
  Isa isa;
  std::string_view name;
  /// y[:, n0..n1) = x * W[n0..n1, :]^T for weights of any format. Packed ones: n0 is a multiple of
  /// kPanelOutputs, and so is n1 unless it is w.rows; the order of their sums is that of packed.h.
  void (*matmul)(const float* x, int64_t m, int64_t ldx, const Matrix& w, int64_t n0, int64_t n1,
                 float* y, int64_t ldy);
  /// out[i] = w[i] * x[i] / sqrt(mean(x^2) + eps); `out` may be `x`. w null = no weight.
  void (*rms_norm)(const float* x, const float* w, int64_t n, float eps, float* out);
  /// gate[i] = silu(gate[i]) * up[i], silu(x) = x * sigmoid(x).
  void (*swiglu)(float* gate, const float* up, int64_t n);
  /// y[i] += a * x[i].
  void (*axpy)(float a, const float* x, float* y, int64_t n);
  /// Softmax attention of heads [h0, h1) of the query rows.
  void (*attention)(const AttentionArgs& args, int64_t h0, int64_t h1);
};

/// For a loop over parts of products that read the same inputs: products with packed weights bring
/// their input rows into integers, which for many rows takes as long as the product with some
/// dozens of outputs. While one of these lives on a thread, it keeps the rows that it made last for
/// the next product that reads the same rows at the same address. REQUIRES: no input changes
/// between the first and the last part of a loop.
class SharedInputs {
 public:
  /// `loop`: of next_loop(), the same on all threads that share in the loop.
  explicit SharedInputs(uint64_t loop);
  ~SharedInputs();
  SharedInputs(const SharedInputs&) = delete;
  SharedInputs& operator=(const SharedInputs&) = delete;

  /// A number that no loop had. Any thread.
  static uint64_t next_loop();
};

/// The table of an instruction set. REQUIRES: isa_supported(isa).
const Kernels& kernels_for(Isa isa);
bool isa_supported(Isa isa);
/// Best supported variant; CHIMERA_ISA=scalar|avx2|avx512 lowers the choice (for tests).
const Kernels& best_kernels();

}  // namespace chimera
