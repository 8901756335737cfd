// Rows, embedding, norms, residuals and head.
#include "backbone/forward/pass.h"

#include "compute/tensor/pack.h"

namespace chimera {

ForwardPass::ForwardPass(const ModelConfig& config, const Rope& rope,
                         std::span<BatchSegment> segments, const Kernels& kernels, ThreadPool& pool,
                         Workspace& ws)
    : c_(config),
      rope_(rope),
      segments_(segments),
      kernels_(kernels),
      pool_(pool),
      ws_(ws),
      scale_(attention_scale(config)) {}

void ForwardPass::prepare() {
  ws_.row_segment.clear();
  ws_.row_position.clear();
  for (size_t s = 0; s < segments_.size(); ++s)
    for (size_t t = 0; t < segments_[s].tokens.size(); ++t) {
      ws_.row_segment.push_back(static_cast<int64_t>(s));
      ws_.row_position.push_back(segments_[s].position + static_cast<int64_t>(t));
    }
  rows_ = static_cast<int64_t>(ws_.row_segment.size());
  for (FloatBuffer* v : {&ws_.x, &ws_.normed, &ws_.ffn}) sized(*v, c_.hidden_size);
  sized(ws_.q, q_width());
  sized(ws_.k, c_.key_width());
  sized(ws_.v, c_.value_width());
  sized(ws_.attn, c_.num_heads * c_.v_head_dim);
  sized(ws_.rope, c_.rope_dim);
  if (c_.mla) {
    sized(ws_.q_low, c_.mla->q_lora_rank);
    sized(ws_.q_latent, c_.num_heads * c_.key_width());
    sized(ws_.attn_latent, c_.num_heads * c_.mla->kv_lora_rank);
  }
  prepare_adapters();
}

void ForwardPass::embed(const Matrix& table) {
  const int64_t width = c_.hidden_size;
  int64_t row = 0;
  for (const BatchSegment& segment : segments_)
    for (const int32_t token : segment.tokens) {
      float* x = ws_.x.data() + width * row++;
      widen_row(table, token, x);
    }
}

void ForwardPass::rope_angles() {
  for_rows([&](int64_t r) { rope_.angles(row_position(r), ws_.rope.data() + r * c_.rope_dim); });
}

Status ForwardPass::block(int64_t layer, const LayerWeights& weights, FeedForward& ffn) {
  const bool pre = c_.norm_placement == NormPlacement::kPre;
  attention(layer, weights, pre ? normed(weights.attention_norm) : ws_.x.data());
  if (!pre) norm_ffn_buffer(weights.attention_norm);
  add_residual();
  const float* x = pre ? normed(weights.ffn_norm) : ws_.x.data();
  if (weights.dense) {
    feed_forward(layer, *weights.dense, kDenseRoles, x, ws_.ffn.data());
  } else {
    CHIMERA_RETURN_IF_ERROR(ffn.forward(layer, x, rows_, ws_.ffn.data()));
    if (weights.shared) add_shared(layer, weights, x);
  }
  if (!pre) norm_ffn_buffer(weights.ffn_norm);
  add_residual();
  return Status();
}

void ForwardPass::states(const std::vector<float>& final_norm) {
  const int64_t width = c_.hidden_size;
  int64_t wanted = 0;
  for (const BatchSegment& segment : segments_)
    if (segment.states) wanted += static_cast<int64_t>(segment.tokens.size());
  ws_.states.resize(static_cast<size_t>(wanted * width));
  float* out = ws_.states.data();
  int64_t row = 0;
  for (const BatchSegment& segment : segments_) {
    const auto n = static_cast<int64_t>(segment.tokens.size());
    for (int64_t t = 0; segment.states && t < n; ++t, out += width)
      kernels_.rms_norm(ws_.x.data() + (row + t) * width, final_norm.data(), width, c_.rms_norm_eps,
                        out);
    row += n;
  }
}

void ForwardPass::head(const std::vector<float>& final_norm, const Matrix& weights) {
  const int64_t width = c_.hidden_size;
  int64_t wanted = 0;
  int64_t row = 0;
  for (const BatchSegment& segment : segments_) {
    const int64_t n = static_cast<int64_t>(segment.tokens.size());
    const int64_t skip = segment.logits == BatchSegment::Logits::kAll    ? 0
                         : segment.logits == BatchSegment::Logits::kLast ? n - 1
                                                                         : n;
    for (int64_t t = skip; t < n; ++t)
      kernels_.rms_norm(ws_.x.data() + (row + t) * width, final_norm.data(), width, c_.rms_norm_eps,
                        ws_.normed.data() + width * wanted++);
    row += n;
  }
  ws_.logits.resize(static_cast<size_t>(wanted * c_.vocab_size));
  linear(kernels_, pool_, wanted, {{ws_.normed.data(), &weights, ws_.logits.data()}});
}

const float* ForwardPass::normed(const std::vector<float>& weight) {
  for_rows([&](int64_t r) {
    kernels_.rms_norm(ws_.x.data() + r * c_.hidden_size, weight.data(), c_.hidden_size,
                      c_.rms_norm_eps, ws_.normed.data() + r * c_.hidden_size);
  });
  return ws_.normed.data();
}

void ForwardPass::norm_ffn_buffer(const std::vector<float>& weight) {
  for_rows([&](int64_t r) {
    float* row = ws_.ffn.data() + r * c_.hidden_size;
    kernels_.rms_norm(row, weight.data(), c_.hidden_size, c_.rms_norm_eps, row);
  });
}

void ForwardPass::add_residual() {
  for_rows([&](int64_t r) {
    kernels_.axpy(1.0f, ws_.ffn.data() + r * c_.hidden_size, ws_.x.data() + r * c_.hidden_size,
                  c_.hidden_size);
  });
}

}  // namespace chimera
