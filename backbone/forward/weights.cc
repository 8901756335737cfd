// From the table of a layer's tensors (families/needed_tensors.h) to its weights.
#include "backbone/forward/weights.h"

#include <cstring>
#include <initializer_list>
#include <memory>
#include <new>
#include <string>

#include "backbone/families/needed_tensors.h"
#include "compute/tensor/convert.h"

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
  w.k_up.clear();
  w.v_up.clear();
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

Status place_matrix(const ModelConfig& config, TensorRole role, Matrix matrix, LayerWeights& out) {
  if (role == kKvB) return cut_up_projections(config, matrix, made(out.latent));
  *matrix_place(role, out) = std::move(matrix);
  return Status();
}

uint64_t vector_bytes(const std::vector<float>& v) { return v.size() * sizeof(float); }

/// Adds up the bytes of weights, but for matrices that are those of another layer.
class ByteCount {
 public:
  uint64_t bytes() const { return bytes_; }

  /// `other`: the matrix in the same place of the other layer, or null. `times`: how often its
  /// numbers are held.
  void add(const Matrix& m, const Matrix* other, uint64_t times = 1) {
    if (other == nullptr || m.data != other->data) bytes_ += times * m.bytes();
  }
  void add(std::initializer_list<const std::vector<float>*> vectors) {
    for (const auto* v : vectors) bytes_ += vector_bytes(*v);
  }
  void add(const std::optional<FfnWeights>& ffn, const std::optional<FfnWeights>* other) {
    if (!ffn) return;
    for (const auto part : {&FfnWeights::gate, &FfnWeights::up, &FfnWeights::down})
      add((*ffn).*part, other != nullptr && *other ? &((**other).*part) : nullptr);
  }
  void add(const LatentWeights& w, const LatentWeights* other) {
    add(w.q_a, other ? &other->q_a : nullptr);
    add(w.kv_a, other ? &other->kv_a : nullptr);
    add({&w.q_a_bias, &w.q_a_norm, &w.kv_a_bias, &w.kv_a_norm});
    for (size_t h = 0; h < w.k_up.size(); ++h) {
      // The stored key rows stay mapped beside their transposed copies.
      add(w.k_up[h], other ? &other->k_up[h] : nullptr, 2);
      add(w.v_up[h], other ? &other->v_up[h] : nullptr);
    }
  }

 private:
  uint64_t bytes_ = 0;
};

uint64_t count_bytes(const LayerWeights& l, const LayerWeights* other) {
  ByteCount count;
  count.add(l.dense, other ? &other->dense : nullptr);
  count.add(l.shared, other ? &other->shared : nullptr);
  for (const auto part : {&LayerWeights::q, &LayerWeights::k, &LayerWeights::v, &LayerWeights::o})
    count.add(l.*part, other ? &(other->*part) : nullptr);
  count.add({&l.q_bias, &l.k_bias, &l.v_bias, &l.o_bias, &l.q_norm, &l.k_norm, &l.sinks,
             &l.attention_norm, &l.ffn_norm});
  if (l.latent) count.add(*l.latent, other ? &*other->latent : nullptr);
  if (l.shared_gate) count.add(*l.shared_gate, other ? &*other->shared_gate : nullptr);
  return count.bytes();
}

}  // namespace

Precision kept_precision(TensorRole role, const PrecisionPlan& plan) {
  switch (role) {
    case kHead:
      return plan.head;
    case kEmbedding:
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

Status load_layer(const Checkpoint& checkpoint, const ModelConfig& config,
                  const PrecisionPlan& precision, int64_t layer, LayerWeights& out) {
  for (const NeededTensor& t : needed_layer_tensors(config, layer)) {
    if (t.shape.size() == 1) {
      CHIMERA_RETURN_IF_ERROR(
          take(checkpoint.vector(t.name, t.shape[0]), *vector_place(t.role, out)));
      continue;
    }
    Result<Matrix> matrix =
        checkpoint.matrix(t.name, t.shape[0], t.shape[1], kept_precision(t.role, precision));
    if (!matrix.ok()) return matrix.status();
    CHIMERA_RETURN_IF_ERROR(place_matrix(config, t.role, std::move(*matrix), out));
  }
  return Status();
}

Status place_tensor(const ModelConfig& config, const PrecisionPlan& precision,
                    const NeededTensor& needed, const TensorView& tensor, LayerWeights& out) {
  if (needed.shape.size() == 1)
    return take(to_f32(tensor, needed.shape[0]), *vector_place(needed.role, out));
  Result<Matrix> matrix =
      to_matrix(tensor, needed.shape[0], needed.shape[1], kept_precision(needed.role, precision));
  if (!matrix.ok()) return matrix.status();
  return place_matrix(config, needed.role, std::move(*matrix), out);
}

PlacedBytes placed_bytes(const ModelConfig& config, const PrecisionPlan& precision,
                         const NeededTensor& needed, DType stored) {
  if (needed.shape.size() == 1)
    return {static_cast<uint64_t>(needed.shape[0]) * sizeof(float), false};
  PlacedBytes placed;
  const auto keep = [&](Precision wanted) {
    const WeightFormat kept = charged_format(stored, wanted);
    const bool same = is_stored_as(stored, kept);
    const auto bytes = static_cast<uint64_t>(weight_bytes(kept, needed.shape[0], needed.shape[1]));
    placed.in_place = placed.in_place || same;
    if (!same) placed.made += bytes;
    if (needed.role != kKvB) return;
    // Key rows are transposed; as they were they stay beside that.
    const int64_t keys = config.num_heads * config.mla->qk_nope_head_dim;
    placed.made += static_cast<uint64_t>(weight_bytes(kept, keys, needed.shape[1]));
  };
  keep(kept_precision(needed.role, precision));
  const bool tied = needed.role == kEmbedding && config.tie_word_embeddings;
  if (tied && packed_format(precision.head)) keep(precision.head);
  return placed;
}

uint64_t weight_bytes(const LayerWeights& layer) { return count_bytes(layer, nullptr); }

uint64_t weight_bytes_beside(const LayerWeights& layer, const LayerWeights& other) {
  return &layer == &other ? 0 : count_bytes(layer, &other);
}

}  // namespace chimera
