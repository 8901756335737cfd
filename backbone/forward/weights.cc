// From the table of a layer's tensors (families/needed_tensors.h) to its weights.
#include "backbone/forward/weights.h"

#include <cstring>
#include <memory>
#include <new>
#include <string>

#include "backbone/families/needed_tensors.h"

namespace chimera {
namespace {

using enum TensorRole;

/// Copies a loaded value into place, or hands its error on.
template <class T>
Status take(Result<T> loaded, T& into) {
  if (!loaded.ok()) return loaded.status();
  into = std::move(*loaded);
  return Status();
}

template <class T>
T& made(std::optional<T>& part) {
  return part ? *part : part.emplace();
}

/// Where a matrix of the table goes; null for one that is cut up (kKvB) or is no part of a layer.
Matrix* matrix_place(TensorRole role, LayerWeights& out) {
  switch (role) {
    case kQ:
      return &out.q;
    case kK:
      return &out.k;
    case kV:
      return &out.v;
    case kO:
      return &out.o;
    case kQA:
      return &made(out.latent).q_a;
    case kKvA:
      return &made(out.latent).kv_a;
    case kDenseGate:
      return &made(out.dense).gate;
    case kDenseUp:
      return &made(out.dense).up;
    case kDenseDown:
      return &made(out.dense).down;
    case kSharedGate:
      return &made(out.shared).gate;
    case kSharedUp:
      return &made(out.shared).up;
    case kSharedDown:
      return &made(out.shared).down;
    case kSharedScore:
      return &made(out.shared_gate);
    default:
      return nullptr;
  }
}

/// The same for a vector.
std::vector<float>* vector_place(TensorRole role, LayerWeights& out) {
  switch (role) {
    case kQBias:
      return &out.q_bias;
    case kKBias:
      return &out.k_bias;
    case kVBias:
      return &out.v_bias;
    case kOBias:
      return &out.o_bias;
    case kQNorm:
      return &out.q_norm;
    case kKNorm:
      return &out.k_norm;
    case kSinks:
      return &out.sinks;
    case kQABias:
      return &made(out.latent).q_a_bias;
    case kQANorm:
      return &made(out.latent).q_a_norm;
    case kKvABias:
      return &made(out.latent).kv_a_bias;
    case kKvANorm:
      return &made(out.latent).kv_a_norm;
    case kAttentionNorm:
      return &out.attention_norm;
    case kFfnNorm:
      return &out.ffn_norm;
    default:
      return nullptr;
  }
}

size_t element(const Matrix& m) { return static_cast<size_t>(info_of(m.format).element_bytes); }

Matrix row_slice(const Matrix& m, int64_t first, int64_t rows) {
  Matrix out = m;
  out.data =
      static_cast<const std::byte*>(m.data) + static_cast<size_t>(first * m.cols) * element(m);
  out.rows = rows;
  return out;
}

Result<Matrix> transposed(const Matrix& m) {
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
  return Matrix{memory.get(), m.format, m.cols, m.rows, memory};
}

/// Cuts kv_b_proj, per head its key rows and then its value rows.
Status cut_up_projections(const ModelConfig& c, const Matrix& kv_b, LatentWeights& w) {
  const int64_t key_rows = c.mla->qk_nope_head_dim;
  const int64_t rows = key_rows + c.v_head_dim;  // of one head
  for (int64_t h = 0; h < c.num_heads; ++h) {
    Result<Matrix> keys = transposed(row_slice(kv_b, h * rows, key_rows));
    if (!keys.ok()) return keys.status();
    w.k_up.push_back(std::move(*keys));
    w.v_up.push_back(row_slice(kv_b, h * rows + key_rows, c.v_head_dim));
  }
  return Status();
}

/// In which precision a matrix of the table is kept.
Precision precision_of(TensorRole role, const PrecisionPlan& plan) {
  switch (role) {
    case kKvB:          // cut up and transposed
    case kSharedScore:  // a gate
      return Precision::kF32;
    case kDenseGate:
    case kDenseUp:
    case kDenseDown:
    case kSharedGate:
    case kSharedUp:
    case kSharedDown:
      return plan.dense();
    default:
      return plan.attention;
  }
}

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

Status load_layer(const Checkpoint& checkpoint, const ModelConfig& config,
                  const PrecisionPlan& precision, int64_t layer, LayerWeights& out) {
  for (const NeededTensor& t : needed_layer_tensors(config, layer)) {
    if (t.shape.size() == 1) {
      CHIMERA_RETURN_IF_ERROR(
          take(checkpoint.vector(t.name, t.shape[0]), *vector_place(t.role, out)));
      continue;
    }
    Result<Matrix> matrix =
        checkpoint.matrix(t.name, t.shape[0], t.shape[1], precision_of(t.role, precision));
    if (!matrix.ok()) return matrix.status();
    if (t.role == kKvB) {
      CHIMERA_RETURN_IF_ERROR(cut_up_projections(config, *matrix, made(out.latent)));
    } else {
      *matrix_place(t.role, out) = std::move(*matrix);
    }
  }
  return Status();
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
