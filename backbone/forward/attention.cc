// Attention with query, key and value projections: biases, QK norms, clipping, rotation,
// temperature. Which of them a model has is its family's choice; their order is fixed by it too.
#include <algorithm>
#include <cmath>

#include "backbone/forward/pass.h"

namespace chimera {
namespace {

void clamp_row(float limit, float* row, int64_t n) {
  for (int64_t i = 0; i < n; ++i) row[i] = std::clamp(row[i], -limit, limit);
}

}  // namespace

void ForwardPass::attention(int64_t layer, const LayerWeights& w, const float* x) {
  if (w.latent)
    latent_attention(layer, w, x);
  else
    standard_attention(layer, w, x);
  multiply(layer, {{TensorRole::kO, ws_.attn.data(), &w.o, ws_.ffn.data()}});
  if (!w.o_bias.empty())
    for_rows([&](int64_t r) { add_vector(w.o_bias, ws_.ffn.data() + r * c_.hidden_size); });
}

void ForwardPass::standard_attention(int64_t layer, const LayerWeights& w, const float* x) {
  multiply(layer, {{TensorRole::kQ, x, &w.q, ws_.q.data()},
                   {TensorRole::kK, x, &w.k, ws_.k.data()},
                   {TensorRole::kV, x, &w.v, ws_.v.data()}});
  for_rows([&](int64_t r) { finish_projections(layer, w, r); });
  collect_blocks(layer);
  for_rows([&](int64_t r) {
    store_kv(r, ws_.k.data() + r * c_.key_width(), ws_.v.data() + r * c_.value_width());
  });
  AttentionArgs shape{};
  shape.q = ws_.q.data();
  shape.heads = c_.num_heads;
  shape.kv_heads = c_.num_kv_heads;
  shape.head_dim = c_.head_dim;
  shape.v_dim = c_.v_head_dim;
  shape.k_stride = c_.key_width();
  shape.v_stride = c_.value_width();
  shape.scale = scale_;
  shape.sinks = w.sinks.empty() ? nullptr : w.sinks.data();
  shape.out = ws_.attn.data();
  attend(c_.masks[static_cast<size_t>(layer)], shape);
}

void ForwardPass::finish_projections(int64_t layer, const LayerWeights& w, int64_t r) {
  float* q = ws_.q.data() + r * q_width();
  float* k = ws_.k.data() + r * c_.key_width();
  float* v = ws_.v.data() + r * c_.value_width();
  add_vector(w.q_bias, q);
  add_vector(w.k_bias, k);
  add_vector(w.v_bias, v);
  if (c_.qk_norm == QkNorm::kWholeVector) {
    kernels_.rms_norm(q, w.q_norm.data(), q_width(), c_.rms_norm_eps, q);
    kernels_.rms_norm(k, w.k_norm.data(), c_.key_width(), c_.rms_norm_eps, k);
  } else if (c_.qk_norm == QkNorm::kPerHead) {
    norm_heads(w.q_norm, c_.num_heads, q);
    norm_heads(w.k_norm, c_.num_kv_heads, k);
  }
  if (c_.clip_qkv) {
    clamp_row(*c_.clip_qkv, q, q_width());
    clamp_row(*c_.clip_qkv, k, c_.key_width());
    clamp_row(*c_.clip_qkv, v, c_.value_width());
  }
  if (!rotated(layer)) return scale_query(r, q);
  rotate_heads(r, c_.num_heads, q);
  rotate_heads(r, c_.num_kv_heads, k);
  if (c_.qk_norm == QkNorm::kPerHeadAfterRope) {
    norm_heads({}, c_.num_heads, q);
    norm_heads({}, c_.num_kv_heads, k);
  }
}

void ForwardPass::norm_heads(const std::vector<float>& weight, int64_t heads, float* row) const {
  const float* w = weight.empty() ? nullptr : weight.data();
  for (int64_t h = 0; h < heads; ++h, row += c_.head_dim)
    kernels_.rms_norm(row, w, c_.head_dim, c_.rms_norm_eps, row);
}

void ForwardPass::rotate_heads(int64_t r, int64_t heads, float* row) const {
  for (int64_t h = 0; h < heads; ++h) rope_.rotate(row_angles(r), row + h * c_.head_dim);
}

void ForwardPass::scale_query(int64_t r, float* q) const {
  if (!c_.temperature_tuning) return;
  const auto position = static_cast<float>(row_position(r));
  const float steps =
      std::floor((position + 1.0f) / static_cast<float>(c_.temperature_tuning->floor_scale));
  const float scale =
      std::log1p(steps) * static_cast<float>(c_.temperature_tuning->attn_scale) + 1.0f;
  for (int64_t i = 0; i < q_width(); ++i) q[i] *= scale;
}

}  // namespace chimera
