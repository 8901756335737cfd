// Which tensors a layer's backbone part consists of, and their shapes.
#include "backbone/forward/weights.h"

#include <cstring>
#include <memory>
#include <new>
#include <string>

namespace chimera {
namespace {

/// Copies a loaded value into place, or hands its error on.
template <class T>
Status take(Result<T> loaded, T& into) {
  if (!loaded.ok()) return loaded.status();
  into = std::move(*loaded);
  return Status();
}

class LayerLoader {
 public:
  LayerLoader(const Checkpoint& checkpoint, const ModelConfig& config, Precision precision,
              int64_t layer)
      : checkpoint_(checkpoint), c_(config), precision_(precision), layer_(layer) {}

  Status load(LayerWeights& out) const {
    const TensorNames& names = tensor_names(c_);
    CHIMERA_RETURN_IF_ERROR(c_.mla ? latent(out) : standard(out));
    CHIMERA_RETURN_IF_ERROR(
        matrix("self_attn.o_proj.weight", c_.hidden_size, c_.num_heads * c_.v_head_dim, out.o));
    if (c_.attention_output_bias)
      CHIMERA_RETURN_IF_ERROR(vector("self_attn.o_proj.bias", c_.hidden_size, out.o_bias));
    if (c_.attention_sinks)
      CHIMERA_RETURN_IF_ERROR(vector("self_attn.sinks", c_.num_heads, out.sinks));
    CHIMERA_RETURN_IF_ERROR(vector(names.attention_norm, c_.hidden_size, out.attention_norm));
    CHIMERA_RETURN_IF_ERROR(vector(names.ffn_norm, c_.hidden_size, out.ffn_norm));
    return feed_forward(names, out);
  }

 private:
  Status standard(LayerWeights& out) const {
    const int64_t q_width = c_.num_heads * c_.head_dim;
    const int64_t kv_width = c_.num_kv_heads * c_.head_dim;
    CHIMERA_RETURN_IF_ERROR(matrix("self_attn.q_proj.weight", q_width, c_.hidden_size, out.q));
    CHIMERA_RETURN_IF_ERROR(matrix("self_attn.k_proj.weight", kv_width, c_.hidden_size, out.k));
    CHIMERA_RETURN_IF_ERROR(matrix("self_attn.v_proj.weight", kv_width, c_.hidden_size, out.v));
    if (c_.attention_bias) {
      CHIMERA_RETURN_IF_ERROR(vector("self_attn.q_proj.bias", q_width, out.q_bias));
      CHIMERA_RETURN_IF_ERROR(vector("self_attn.k_proj.bias", kv_width, out.k_bias));
      CHIMERA_RETURN_IF_ERROR(vector("self_attn.v_proj.bias", kv_width, out.v_bias));
    }
    const bool whole = c_.qk_norm == QkNorm::kWholeVector;
    if (!whole && c_.qk_norm != QkNorm::kPerHead) return Status();
    CHIMERA_RETURN_IF_ERROR(
        vector("self_attn.q_norm.weight", whole ? q_width : c_.head_dim, out.q_norm));
    return vector("self_attn.k_norm.weight", whole ? kv_width : c_.head_dim, out.k_norm);
  }

  Status latent(LayerWeights& out) const {
    const MlaConfig& m = *c_.mla;
    LatentWeights& w = out.latent.emplace();
    const int64_t q_width = c_.num_heads * c_.head_dim;
    if (m.q_lora_rank == 0) {
      CHIMERA_RETURN_IF_ERROR(matrix("self_attn.q_proj.weight", q_width, c_.hidden_size, out.q));
    } else {
      CHIMERA_RETURN_IF_ERROR(
          matrix("self_attn.q_a_proj.weight", m.q_lora_rank, c_.hidden_size, w.q_a));
      CHIMERA_RETURN_IF_ERROR(vector("self_attn.q_a_layernorm.weight", m.q_lora_rank, w.q_a_norm));
      CHIMERA_RETURN_IF_ERROR(matrix("self_attn.q_b_proj.weight", q_width, m.q_lora_rank, out.q));
    }
    CHIMERA_RETURN_IF_ERROR(
        matrix("self_attn.kv_a_proj_with_mqa.weight", c_.key_width(), c_.hidden_size, w.kv_a));
    CHIMERA_RETURN_IF_ERROR(vector("self_attn.kv_a_layernorm.weight", m.kv_lora_rank, w.kv_a_norm));
    if (c_.attention_bias) {
      if (m.q_lora_rank > 0)
        CHIMERA_RETURN_IF_ERROR(vector("self_attn.q_a_proj.bias", m.q_lora_rank, w.q_a_bias));
      CHIMERA_RETURN_IF_ERROR(
          vector("self_attn.kv_a_proj_with_mqa.bias", c_.key_width(), w.kv_a_bias));
    }
    return up_projections(w);
  }

  /// Cuts kv_b_proj, per head its key rows and then its value rows.
  Status up_projections(LatentWeights& w) const {
    const MlaConfig& m = *c_.mla;
    const int64_t rows = m.qk_nope_head_dim + c_.v_head_dim;  // of one head
    Matrix kv_b;
    CHIMERA_RETURN_IF_ERROR(
        matrix("self_attn.kv_b_proj.weight", c_.num_heads * rows, m.kv_lora_rank, kv_b));
    for (int64_t h = 0; h < c_.num_heads; ++h) {
      Result<Matrix> keys = transposed(row_slice(kv_b, h * rows, m.qk_nope_head_dim));
      if (!keys.ok()) return keys.status();
      w.k_up.push_back(std::move(*keys));
      w.v_up.push_back(row_slice(kv_b, h * rows + m.qk_nope_head_dim, c_.v_head_dim));
    }
    return Status();
  }

  static size_t element(const Matrix& m) { return m.dtype == DType::kF32 ? 4 : 2; }

  static Matrix row_slice(const Matrix& m, int64_t first, int64_t rows) {
    Matrix out = m;
    out.data =
        static_cast<const std::byte*>(m.data) + static_cast<size_t>(first * m.cols) * element(m);
    out.rows = rows;
    return out;
  }

  static Result<Matrix> transposed(const Matrix& m) {
    const size_t size = element(m);
    const std::shared_ptr<std::byte[]> memory(new (std::nothrow) std::byte[m.bytes()]);
    if (memory == nullptr)
      return Status(Code::kResourceExhausted,
                    "no memory for a transposed matrix of " + std::to_string(m.bytes()) + " bytes");
    const auto* from = static_cast<const std::byte*>(m.data);
    for (int64_t r = 0; r < m.rows; ++r)
      for (int64_t k = 0; k < m.cols; ++k)
        std::memcpy(memory.get() + static_cast<size_t>(k * m.rows + r) * size,
                    from + static_cast<size_t>(r * m.cols + k) * size, size);
    return Matrix{memory.get(), m.dtype, m.cols, m.rows, memory};
  }

  Status feed_forward(const TensorNames& names, LayerWeights& out) const {
    if (c_.moe_layers[static_cast<size_t>(layer_)] == 0)
      return ffn(names.dense_prefix, c_.dense_intermediate_size, out.dense.emplace());
    if (c_.shared_intermediate_size == 0) return Status();
    CHIMERA_RETURN_IF_ERROR(
        ffn(names.shared_prefix, c_.shared_intermediate_size, out.shared.emplace()));
    if (!c_.shared_gated) return Status();
    return matrix(names.shared_gate, 1, c_.hidden_size, out.shared_gate.emplace());
  }

  Status ffn(const std::string& prefix, int64_t width, FfnWeights& out) const {
    CHIMERA_RETURN_IF_ERROR(matrix(prefix + "gate_proj.weight", width, c_.hidden_size, out.gate));
    CHIMERA_RETURN_IF_ERROR(matrix(prefix + "up_proj.weight", width, c_.hidden_size, out.up));
    return matrix(prefix + "down_proj.weight", c_.hidden_size, width, out.down);
  }

  Status matrix(std::string_view tail, int64_t rows, int64_t cols, Matrix& into) const {
    return take(checkpoint_.matrix(layer_tensor(c_, layer_, tail), rows, cols, precision_), into);
  }
  Status vector(std::string_view tail, int64_t n, std::vector<float>& into) const {
    return take(checkpoint_.vector(layer_tensor(c_, layer_, tail), n), into);
  }

  const Checkpoint& checkpoint_;
  const ModelConfig& c_;
  Precision precision_;
  int64_t layer_;
};

uint64_t vector_bytes(const std::vector<float>& v) { return v.size() * sizeof(float); }

uint64_t ffn_bytes(const std::optional<FfnWeights>& ffn) {
  return ffn ? ffn->gate.bytes() + ffn->up.bytes() + ffn->down.bytes() : 0;
}

uint64_t latent_bytes(const LatentWeights& w) {
  uint64_t bytes = w.q_a.bytes() + w.kv_a.bytes();
  for (const auto* v : {&w.q_a_bias, &w.q_a_norm, &w.kv_a_bias, &w.kv_a_norm})
    bytes += vector_bytes(*v);
  // The stored key rows stay mapped beside their transposed copies.
  for (const Matrix& m : w.k_up) bytes += 2 * m.bytes();
  for (const Matrix& m : w.v_up) bytes += m.bytes();
  return bytes;
}

}  // namespace

Status load_layer(const Checkpoint& checkpoint, const ModelConfig& config, Precision precision,
                  int64_t layer, LayerWeights& out) {
  return LayerLoader(checkpoint, config, precision, layer).load(out);
}

uint64_t weight_bytes(const LayerWeights& l) {
  uint64_t bytes = ffn_bytes(l.dense) + ffn_bytes(l.shared);
  for (const Matrix* m : {&l.q, &l.k, &l.v, &l.o}) bytes += m->bytes();
  for (const auto* v : {&l.q_bias, &l.k_bias, &l.v_bias, &l.o_bias, &l.q_norm, &l.k_norm, &l.sinks,
                        &l.attention_norm, &l.ffn_norm})
    bytes += vector_bytes(*v);
  if (l.latent) bytes += latent_bytes(*l.latent);
  if (l.shared_gate) bytes += l.shared_gate->bytes();
  return bytes;
}

}  // namespace chimera
