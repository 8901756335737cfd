// The forward pass, one function per block, in the order of the papers.
//
// All rows of a batch - prompt chunks and decode steps of any number of sequences - go through
// each matrix product together; only attention looks at one sequence at a time.
#include <algorithm>
#include <cmath>
#include <cstring>
#include <new>

#include "backbone/backbone.h"
#include "backbone/linear.h"

namespace chimera {
namespace {

// Row loops below this many floats, and attention below this many multiply-adds, are cheaper than
// handing them over (about a microsecond).
constexpr int64_t kInlineFloats = 32 * 1024;
constexpr int64_t kInlineAttention = 64 * 1024;
constexpr int64_t kSharesPerThread = 4;

void add_vector(const std::vector<float>& bias, float* row) {
  for (size_t i = 0; i < bias.size(); ++i) row[i] += bias[i];
}

void clamp_row(float limit, float* row, int64_t n) {
  for (int64_t i = 0; i < n; ++i) row[i] = std::clamp(row[i], -limit, limit);
}

/// Rotates pairs (i, i + d/2) of every head (the half-split layout).
void rotate(const float* cosines, const float* sines, int64_t heads, int64_t head_dim, float* row) {
  const int64_t half = head_dim / 2;
  for (int64_t h = 0; h < heads; ++h, row += head_dim)
    for (int64_t i = 0; i < half; ++i) {
      const float a = row[i];
      const float b = row[i + half];
      row[i] = a * cosines[i] - b * sines[i];
      row[i + half] = b * cosines[i] + a * sines[i];
    }
}

/// One pass over one batch: the rows, where they belong, and the scratch memory.
class Pass {
 public:
  Pass(const ModelConfig& config, std::span<BatchSegment> segments, const Kernels& kernels,
       ThreadPool& pool, Workspace& ws)
      : c_(config), segments_(segments), kernels_(kernels), pool_(pool), ws_(ws) {}

  int64_t rows() const { return rows_; }

  /// Lists the rows and sizes the scratch memory.
  void prepare() {
    ws_.row_segment.clear();
    ws_.row_position.clear();
    for (size_t s = 0; s < segments_.size(); ++s)
      for (size_t t = 0; t < segments_[s].tokens.size(); ++t) {
        ws_.row_segment.push_back(static_cast<int64_t>(s));
        ws_.row_position.push_back(segments_[s].position + static_cast<int64_t>(t));
      }
    rows_ = static_cast<int64_t>(ws_.row_segment.size());
    const auto sized = [&](std::vector<float>& v, int64_t width) {
      v.resize(static_cast<size_t>(rows_ * width));
    };
    for (std::vector<float>* v : {&ws_.x, &ws_.normed, &ws_.ffn}) sized(*v, c_.hidden_size);
    sized(ws_.q, q_width());
    sized(ws_.k, kv_width());
    sized(ws_.v, kv_width());
    sized(ws_.attn, q_width());
    sized(ws_.rope, c_.head_dim);
  }

  void embed(const Matrix& table) {
    const int64_t width = c_.hidden_size;
    int64_t row = 0;
    for (const BatchSegment& segment : segments_)
      for (const int32_t token : segment.tokens) {
        float* x = ws_.x.data() + width * row++;
        if (table.dtype == DType::kF32) {
          std::memcpy(x, static_cast<const float*>(table.data) + token * width,
                      static_cast<size_t>(width) * sizeof(float));
        } else {
          const auto* from = static_cast<const uint16_t*>(table.data) + token * width;
          for (int64_t i = 0; i < width; ++i) x[i] = bf16_to_f32(from[i]);
        }
      }
  }

  /// Cosines and sines of every row's position, in float like the reference.
  void rope_angles(const std::vector<float>& inv_freq) {
    const int64_t half = c_.head_dim / 2;
    for_rows([&](int64_t r) {
      float* out = ws_.rope.data() + r * c_.head_dim;
      const auto position = static_cast<float>(row_position(r));
      for (int64_t i = 0; i < half; ++i) {
        const float angle = position * inv_freq[static_cast<size_t>(i)];
        out[i] = std::cos(angle);
        out[half + i] = std::sin(angle);
      }
    });
  }

  /// Pre-norm: x += f(norm(x)). Post-norm: x += norm(f(x)).
  Status block(int64_t layer, const Backbone::Layer& weights, FeedForward& ffn) {
    const bool pre = c_.norm_placement == NormPlacement::kPre;
    attention(layer, weights, pre ? normed(weights.attention_norm) : ws_.x.data());
    if (!pre) norm_ffn_buffer(weights.attention_norm);
    add_residual();
    CHIMERA_RETURN_IF_ERROR(
        ffn.forward(layer, pre ? normed(weights.ffn_norm) : ws_.x.data(), rows_, ws_.ffn.data()));
    if (!pre) norm_ffn_buffer(weights.ffn_norm);
    add_residual();
    return Status();
  }

  /// Final norm and head for the rows that asked for logits.
  void head(const std::vector<float>& final_norm, const Matrix& weights) {
    const int64_t width = c_.hidden_size;
    int64_t wanted = 0;
    int64_t row = 0;
    for (const BatchSegment& segment : segments_) {
      const int64_t n = static_cast<int64_t>(segment.tokens.size());
      const int64_t skip = segment.logits == BatchSegment::Logits::kAll    ? 0
                           : segment.logits == BatchSegment::Logits::kLast ? n - 1
                                                                           : n;
      for (int64_t t = skip; t < n; ++t)
        kernels_.rms_norm(ws_.x.data() + (row + t) * width, final_norm.data(), width,
                          c_.rms_norm_eps, ws_.normed.data() + width * wanted++);
      row += n;
    }
    ws_.logits.resize(static_cast<size_t>(wanted * c_.vocab_size));
    linear(kernels_, pool_, wanted, {{ws_.normed.data(), &weights, ws_.logits.data()}});
  }

 private:
  int64_t q_width() const { return c_.num_heads * c_.head_dim; }
  int64_t kv_width() const { return c_.num_kv_heads * c_.head_dim; }
  int64_t row_position(int64_t r) const { return ws_.row_position[static_cast<size_t>(r)]; }
  int64_t row_segment(int64_t r) const { return ws_.row_segment[static_cast<size_t>(r)]; }
  const BatchSegment& segment_of(int64_t r) const {
    return segments_[static_cast<size_t>(row_segment(r))];
  }
  /// First visible position: all, or the window that ends at the row itself.
  int64_t first_visible(int64_t r) const {
    return c_.masks.front().first_visible(row_position(r));
  }

  template <class Body>
  void for_rows(Body body) {
    if (rows_ * c_.hidden_size < kInlineFloats) {
      for (int64_t r = 0; r < rows_; ++r) body(r);
      return;
    }
    pool_.parallel_for(rows_, rows_ / (pool_.threads() * kSharesPerThread) + 1,
                       [&](int64_t begin, int64_t end) {
                         for (int64_t r = begin; r < end; ++r) body(r);
                       });
  }

  const float* normed(const std::vector<float>& weight) {
    for_rows([&](int64_t r) {
      kernels_.rms_norm(ws_.x.data() + r * c_.hidden_size, weight.data(), c_.hidden_size,
                        c_.rms_norm_eps, ws_.normed.data() + r * c_.hidden_size);
    });
    return ws_.normed.data();
  }

  void norm_ffn_buffer(const std::vector<float>& weight) {
    for_rows([&](int64_t r) {
      float* row = ws_.ffn.data() + r * c_.hidden_size;
      kernels_.rms_norm(row, weight.data(), c_.hidden_size, c_.rms_norm_eps, row);
    });
  }

  void add_residual() {
    for_rows([&](int64_t r) {
      kernels_.axpy(1.0f, ws_.ffn.data() + r * c_.hidden_size, ws_.x.data() + r * c_.hidden_size,
                    c_.hidden_size);
    });
  }

  /// Self-attention of `x` into the ffn buffer.
  void attention(int64_t layer, const Backbone::Layer& w, const float* x) {
    linear(kernels_, pool_, rows_,
           {{x, &w.q, ws_.q.data()}, {x, &w.k, ws_.k.data()}, {x, &w.v, ws_.v.data()}});
    for_rows([&](int64_t r) { finish_projections(w, r); });
    collect_blocks(layer);
    for_rows([&](int64_t r) { store_kv(r); });
    attend();
    linear(kernels_, pool_, rows_, {{ws_.attn.data(), &w.o, ws_.ffn.data()}});
    if (!w.o_bias.empty())
      for_rows([&](int64_t r) { add_vector(w.o_bias, ws_.ffn.data() + r * c_.hidden_size); });
  }

  /// Bias, QK norm, clipping and rotation of one row, in this order.
  void finish_projections(const Backbone::Layer& w, int64_t r) {
    float* q = ws_.q.data() + r * q_width();
    float* k = ws_.k.data() + r * kv_width();
    float* v = ws_.v.data() + r * kv_width();
    add_vector(w.q_bias, q);
    add_vector(w.k_bias, k);
    add_vector(w.v_bias, v);
    if (c_.qk_norm == QkNorm::kWholeVector) {
      kernels_.rms_norm(q, w.q_norm.data(), q_width(), c_.rms_norm_eps, q);
      kernels_.rms_norm(k, w.k_norm.data(), kv_width(), c_.rms_norm_eps, k);
    }
    if (c_.clip_qkv) {
      clamp_row(*c_.clip_qkv, q, q_width());
      clamp_row(*c_.clip_qkv, k, kv_width());
      clamp_row(*c_.clip_qkv, v, kv_width());
    }
    const float* cosines = ws_.rope.data() + r * c_.head_dim;
    const float* sines = cosines + c_.head_dim / 2;
    rotate(cosines, sines, c_.num_heads, c_.head_dim, q);
    rotate(cosines, sines, c_.num_kv_heads, c_.head_dim, k);
  }

  /// Addresses of this layer's blocks: for each segment its keys, then its values.
  void collect_blocks(int64_t layer) {
    ws_.block_ptrs.clear();
    ws_.first_block.clear();
    for (const BatchSegment& segment : segments_) {
      ws_.first_block.push_back(static_cast<int64_t>(ws_.block_ptrs.size()));
      KvCache& cache = segment.kv->cache();
      for (KvCache::BlockId id : segment.kv->blocks())
        ws_.block_ptrs.push_back(cache.keys(id, layer));
      for (KvCache::BlockId id : segment.kv->blocks())
        ws_.block_ptrs.push_back(cache.values(id, layer));
    }
  }

  const float* const* key_blocks(int64_t r) const {
    return ws_.block_ptrs.data() + ws_.first_block[static_cast<size_t>(row_segment(r))];
  }
  const float* const* value_blocks(int64_t r) const {
    return key_blocks(r) + segment_of(r).kv->blocks().size();
  }

  /// Writes one row's key and value; the rows of a batch own distinct slots.
  void store_kv(int64_t r) {
    const int64_t size = segment_of(r).kv->cache().block_tokens();
    const int64_t block = row_position(r) / size;
    const int64_t offset = row_position(r) % size * kv_width();
    const size_t bytes = static_cast<size_t>(kv_width()) * sizeof(float);
    std::memcpy(const_cast<float*>(key_blocks(r)[block]) + offset, ws_.k.data() + r * kv_width(),
                bytes);
    std::memcpy(const_cast<float*>(value_blocks(r)[block]) + offset, ws_.v.data() + r * kv_width(),
                bytes);
  }

  /// Softmax attention of all rows. A task is a row and the heads of one key/value head, or one
  /// head where that gives too few tasks; task t goes to share t mod shares, because later rows
  /// of a prompt see more positions than earlier ones.
  void attend() {
    int64_t most = 0;
    int64_t work = 0;
    for (int64_t r = 0; r < rows_; ++r) {
      const int64_t visible = row_position(r) + 1 - first_visible(r);
      most = std::max(most, visible);
      work += visible * q_width();
    }
    const bool inline_it = pool_.threads() == 1 || work < kInlineAttention;
    const bool by_group = inline_it || rows_ * c_.num_kv_heads >= 2 * pool_.threads();
    const int64_t units = by_group ? c_.num_kv_heads : c_.num_heads;
    const int64_t unit_heads = c_.num_heads / units;
    const int64_t tasks = rows_ * units;
    const int64_t shares = inline_it ? 1 : std::min(tasks, pool_.threads() * kSharesPerThread);
    ws_.scores.resize(static_cast<size_t>(shares * most));
    const auto run = [&](int64_t begin, int64_t end) {
      for (int64_t share = begin; share < end; ++share)
        for (int64_t t = share; t < tasks; t += shares)
          attend_row(t / units, t % units * unit_heads, unit_heads,
                     ws_.scores.data() + share * most);
    };
    if (inline_it)
      run(0, 1);
    else
      pool_.parallel_for(shares, 1, run);
  }

  void attend_row(int64_t r, int64_t head, int64_t heads, float* scores) {
    AttentionArgs args;
    args.q = ws_.q.data() + r * q_width();
    args.k = key_blocks(r);
    args.v = value_blocks(r);
    args.block_tokens = segment_of(r).kv->cache().block_tokens();
    args.first = first_visible(r);
    args.count = row_position(r) + 1;
    args.heads = c_.num_heads;
    args.kv_heads = c_.num_kv_heads;
    args.head_dim = c_.head_dim;
    args.scale = 1.0f / std::sqrt(static_cast<float>(c_.head_dim));
    args.scores = scores;
    args.out = ws_.attn.data() + r * q_width();
    kernels_.attention(args, head, head + heads);
  }

  const ModelConfig& c_;
  std::span<BatchSegment> segments_;
  const Kernels& kernels_;
  ThreadPool& pool_;
  Workspace& ws_;
  int64_t rows_ = 0;
};

Status check_segment(const ModelConfig& c, const BatchSegment& segment) {
  if (segment.tokens.empty())
    return Status(Code::kInvalidArgument, "a segment has no tokens, expected at least one");
  for (int32_t token : segment.tokens)
    if (token < 0 || token >= c.vocab_size)
      return Status(Code::kInvalidArgument, "token id " + std::to_string(token) +
                                                " is out of range, expected 0 to " +
                                                std::to_string(c.vocab_size - 1));
  if (segment.kv == nullptr) return Status(Code::kInvalidArgument, "a segment has no KV sequence");
  const int64_t room =
      static_cast<int64_t>(segment.kv->blocks().size()) * segment.kv->cache().block_tokens();
  const int64_t length = static_cast<int64_t>(segment.tokens.size());
  if (segment.position < 0 || segment.position > room - length)
    return Status(Code::kInvalidArgument,
                  "positions " + std::to_string(segment.position) + " to " +
                      std::to_string(segment.position + length - 1) +
                      " do not fit the KV blocks of the sequence, which hold " +
                      std::to_string(room),
                  "reserve the sequence's blocks first");
  return Status();
}

}  // namespace

Status Backbone::forward(std::span<BatchSegment> segments, FeedForward& ffn, const Kernels& kernels,
                         ThreadPool& pool, Workspace& ws) const {
  for (const BatchSegment& segment : segments)
    CHIMERA_RETURN_IF_ERROR(check_segment(config_, segment));
  try {
    Pass pass(config_, segments, kernels, pool, ws);
    pass.prepare();
    pass.embed(embed_);
    pass.rope_angles(inv_freq_);
    for (size_t l = 0; l < layers_.size(); ++l)
      CHIMERA_RETURN_IF_ERROR(pass.block(static_cast<int64_t>(l), layers_[l], ffn));
    pass.head(final_norm_, head_);
  } catch (const std::bad_alloc&) {
    return Status(Code::kResourceExhausted, "no memory for the scratch of a forward pass",
                  "lower the batch size, or request fewer logits at once");
  }
  return Status();
}

}  // namespace chimera
