// One pass over one batch: the rows, where they belong, and the scratch memory. Used by
// backbone_forward.cc alone; its blocks are in files by concern:
//
//   pass.cc       rows, embedding, norms, residuals, head
//   attention.cc  attention with q, k and v projections
//   latent.cc     multi-head latent attention
//   cache.cc      the cache's blocks, and softmax attention over them
//   ffn.cc        dense feed-forwards and shared experts
//   adapter.cc    what adapters add to the products of these
//
// All rows of a batch - prompt chunks and decode steps of any number of sequences - go through
// each matrix product together; only attention looks at one sequence at a time.
//
// Thread safety: none; by the thread that owns pool and workspace, for one pass.
#pragma once

#include <cstdint>
#include <initializer_list>
#include <span>
#include <vector>

#include "backbone/families/model_config.h"
#include "backbone/forward/batch.h"
#include "backbone/forward/rope.h"
#include "backbone/forward/weights.h"
#include "base/threads/thread_pool.h"
#include "compute/kernels/kernels.h"
#include "compute/linear.h"

namespace chimera {

class ForwardPass {
 public:
  ForwardPass(const ModelConfig& config, const Rope& rope, std::span<BatchSegment> segments,
              const Kernels& kernels, ThreadPool& pool, Workspace& ws);

  /// Lists the rows and sizes the scratch memory.
  void prepare();
  void embed(const Matrix& table);
  /// Cosines and sines of every row's position.
  void rope_angles();
  /// Pre-norm: x += f(norm(x)). Post-norm: x += norm(f(x)).
  Status block(int64_t layer, const LayerWeights& weights, FeedForward& ffn);
  /// Final norm of all rows of segments that want states.
  void states(const std::vector<float>& final_norm);
  /// Final norm and head for the rows that asked for logits.
  void head(const std::vector<float>& final_norm, const Matrix& weights);

 private:
  int64_t q_width() const { return c_.num_heads * c_.head_dim; }
  int64_t row_position(int64_t r) const { return ws_.row_position[static_cast<size_t>(r)]; }
  int64_t row_segment(int64_t r) const { return ws_.row_segment[static_cast<size_t>(r)]; }
  const BatchSegment& segment_of(int64_t r) const {
    return segments_[static_cast<size_t>(row_segment(r))];
  }
  const float* row_angles(int64_t r) const { return ws_.rope.data() + r * c_.rope_dim; }
  bool rotated(int64_t layer) const { return c_.rope_layers[static_cast<size_t>(layer)] != 0; }

  /// Calls body(r) for every row, on the pool when the work is worth it.
  template <class Body>
  void for_rows(Body body) {
    if (rows_ * c_.hidden_size < kInlineFloats) {
      for (int64_t r = 0; r < rows_; ++r) body(r);
      return;
    }
    pool_.parallel_for(rows_, rows_ / (pool_.threads() * kForwardShares) + 1,
                       [&](int64_t begin, int64_t end) {
                         for (int64_t r = begin; r < end; ++r) body(r);
                       });
  }
  float* sized(FloatBuffer& buffer, int64_t width) {
    buffer.resize(static_cast<size_t>(rows_ * width));
    return buffer.data();
  }
  static void add_vector(const std::vector<float>& bias, float* row) {
    for (size_t i = 0; i < bias.size(); ++i) row[i] += bias[i];
  }

  const float* normed(const std::vector<float>& weight);
  void norm_ffn_buffer(const std::vector<float>& weight);
  void add_residual();

  // Self-attention of `x` into the ffn buffer.
  void attention(int64_t layer, const LayerWeights& w, const float* x);
  void standard_attention(int64_t layer, const LayerWeights& w, const float* x);
  void latent_attention(int64_t layer, const LayerWeights& w, const float* x);
  /// Bias, QK norm, clipping and rotation of one row, in the order of its family.
  void finish_projections(int64_t layer, const LayerWeights& w, int64_t r);
  void norm_heads(const std::vector<float>& weight, int64_t heads, float* row) const;
  void rotate_heads(int64_t r, int64_t heads, float* row) const;
  void scale_query(int64_t r, float* q) const;
  /// Normalises a row's latent, rotates its key part, and brings the query to latent space's side.
  void finish_latent(const LayerWeights& w, int64_t r);

  KvFormat kv_format() const {
    return segments_.empty() ? KvFormat::kF32 : segments_.front().kv->cache().format();
  }
  /// Addresses of this layer's blocks: for each segment its keys, then its values.
  void collect_blocks(int64_t layer);
  std::byte* const* stored_keys(int64_t r) const {
    return ws_.blocks.data() + ws_.first_block[static_cast<size_t>(row_segment(r))];
  }
  std::byte* const* stored_values(int64_t r) const {
    return stored_keys(r) + segment_of(r).kv->blocks().size();
  }
  const float* const* key_blocks(int64_t r) const {
    return ws_.block_ptrs.data() + ws_.first_block[static_cast<size_t>(row_segment(r))];
  }
  const float* const* value_blocks(int64_t r) const {
    return key_blocks(r) + segment_of(r).kv->blocks().size();
  }
  /// Writes one row's key, and its value unless `v` is null; the rows of a batch own distinct
  /// slots.
  void store_kv(int64_t r, const float* k, const float* v);
  /// Softmax attention of all rows. `shape` has what they have in common: heads, widths, scale and
  /// sinks, with q and out of row 0.
  void attend(const AttentionMask& mask, const AttentionArgs& shape);
  /// Of a cache with two bytes a number: widens what the segments from `first` on see of their
  /// blocks, as many of them as Workspace::most_widened holds and one at least. The one after them.
  size_t widen_blocks(const AttentionMask& mask, size_t first);
  void widen_block(const Workspace::Widening& block);
  /// attend() of these rows, whose Workspace::visible is there.
  void attend_rows(const AttentionArgs& shape, const RowRun& of);
  void cut_rows(const RowRun& of, int64_t unit_heads, int64_t units);
  /// `shape` with what these rows have of their own, but for scratch memory.
  AttentionArgs rows_of(const RowRun& run, AttentionArgs shape) const;

  /// A product of a layer that adapters may change: y [rows, outputs] = x [rows, inputs] * w^T.
  struct Product {
    TensorRole role;
    const float* x;
    const Matrix* weight;
    float* y;
  };
  /// Lists the rows that adapters change.
  void prepare_adapters();
  /// These products of `layer`, independent of one another, with what adapters change of them.
  void multiply(int64_t layer, std::initializer_list<Product> products);
  /// The same for the products of every head of latent attention: queries into latent space, and
  /// mixed latents into values.
  void adapt_k_up(int64_t layer);
  void adapt_v_up(int64_t layer);

  // Roles of a feed-forward that every row passes.
  struct FfnRoles {
    TensorRole gate, up, down;
  };
  static constexpr FfnRoles kDenseRoles{TensorRole::kDenseGate, TensorRole::kDenseUp,
                                        TensorRole::kDenseDown};
  static constexpr FfnRoles kSharedRoles{TensorRole::kSharedGate, TensorRole::kSharedUp,
                                         TensorRole::kSharedDown};
  /// y = FFN(x), [rows, hidden].
  void feed_forward(int64_t layer, const FfnWeights& w, FfnRoles roles, const float* x, float* y);
  /// ffn += shared expert of `x`, gated where the family has a gate.
  void add_shared(int64_t layer, const LayerWeights& w, const float* x);

  // Row loops below this many floats, and attention below this many multiply-adds, are cheaper
  // than handing them over (about a microsecond).
  static constexpr int64_t kInlineFloats = 32 * 1024;
  static constexpr int64_t kInlineAttention = 64 * 1024;

  const ModelConfig& c_;
  const Rope& rope_;
  std::span<BatchSegment> segments_;
  const Kernels& kernels_;
  ThreadPool& pool_;
  Workspace& ws_;
  const float scale_;  // of attention's scores
  int64_t rows_ = 0;
};

}  // namespace chimera
