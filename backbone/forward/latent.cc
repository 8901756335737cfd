// Multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1; model-families 6.1).
//
// The cache holds one row per position: the normalised latent c and the rotated key part k_rope
// that all heads share. Instead of expanding it to keys and values for every head,
//
//   q_nope . (W_uk c) = (W_uk^T q_nope) . c      and      sum_j p_j (W_uv c_j) = W_uv sum_j p_j c_j
//
// so a head's query goes into latent space, attention runs over the cached rows with one key head
// that is its own value, and the mixed latent comes back through W_uv. Prompt and decode rows take
// the same way, so a row's bits do not depend on how its sequence was cut into passes.
#include <cstring>

#include "backbone/forward/pass.h"

namespace chimera {
namespace {

// Fixed in the reference, whatever rms_norm_eps says.
constexpr float kLatentEps = 1e-6f;

}  // namespace

void ForwardPass::latent_attention(int64_t layer, const LayerWeights& w, const float* x) {
  const MlaConfig& m = *c_.mla;
  const LatentWeights& l = *w.latent;
  float* latents = ws_.k.data();
  if (m.q_lora_rank > 0) {
    float* low = ws_.q_low.data();
    multiply(layer, {{TensorRole::kQA, x, &l.q_a, low}, {TensorRole::kKvA, x, &l.kv_a, latents}});
    for_rows([&](int64_t r) {
      float* row = low + r * m.q_lora_rank;
      add_vector(l.q_a_bias, row);
      kernels_.rms_norm(row, l.q_a_norm.data(), m.q_lora_rank, kLatentEps, row);
    });
    multiply(layer, {{TensorRole::kQ, low, &w.q, ws_.q.data()}});
  } else {
    multiply(layer,
             {{TensorRole::kQ, x, &w.q, ws_.q.data()}, {TensorRole::kKvA, x, &l.kv_a, latents}});
  }
  for_rows([&](int64_t r) { finish_latent(w, r); });

  ws_.head_ops.clear();
  for (int64_t h = 0; h < c_.num_heads; ++h)
    ws_.head_ops.push_back({ws_.q.data() + h * c_.head_dim, &l.k_up[static_cast<size_t>(h)],
                            ws_.q_latent.data() + h * c_.key_width(), q_width(),
                            c_.num_heads * c_.key_width()});
  linear(kernels_, pool_, rows_, ws_.head_ops);
  if (!ws_.adapted.empty()) adapt_k_up(layer);

  collect_blocks(layer);
  for_rows([&](int64_t r) { store_kv(r, latents + r * c_.key_width(), nullptr); });
  AttentionArgs shape{};
  shape.q = ws_.q_latent.data();
  shape.heads = c_.num_heads;
  shape.kv_heads = 1;
  shape.head_dim = shape.k_stride = shape.v_stride = c_.key_width();
  shape.v_dim = m.kv_lora_rank;
  shape.scale = scale_;
  shape.out = ws_.attn_latent.data();
  attend(c_.masks[static_cast<size_t>(layer)], shape);

  ws_.head_ops.clear();
  for (int64_t h = 0; h < c_.num_heads; ++h)
    ws_.head_ops.push_back({ws_.attn_latent.data() + h * m.kv_lora_rank,
                            &l.v_up[static_cast<size_t>(h)], ws_.attn.data() + h * c_.v_head_dim,
                            c_.num_heads * m.kv_lora_rank, c_.num_heads * c_.v_head_dim});
  linear(kernels_, pool_, rows_, ws_.head_ops);
  if (!ws_.adapted.empty()) adapt_v_up(layer);
}

void ForwardPass::finish_latent(const LayerWeights& w, int64_t r) {
  const MlaConfig& m = *c_.mla;
  const LatentWeights& l = *w.latent;
  float* latent = ws_.k.data() + r * c_.key_width();
  add_vector(l.kv_a_bias, latent);
  kernels_.rms_norm(latent, l.kv_a_norm.data(), m.kv_lora_rank, kLatentEps, latent);
  rope_.rotate(row_angles(r), latent + m.kv_lora_rank);
  const float* q = ws_.q.data() + r * q_width();
  float* out = ws_.q_latent.data() + r * c_.num_heads * c_.key_width();
  for (int64_t h = 0; h < c_.num_heads; ++h) {
    float* turned = out + h * c_.key_width() + m.kv_lora_rank;
    std::memcpy(turned, q + h * c_.head_dim + m.qk_nope_head_dim,
                static_cast<size_t>(m.qk_rope_head_dim) * sizeof(float));
    rope_.rotate(row_angles(r), turned);
  }
}

}  // namespace chimera
