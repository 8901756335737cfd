#include "experts/lora/build.h"

#include <fmt/format.h>

#include <array>
#include <cstring>
#include <new>

#include "compute/tensor/convert.h"
#include "experts/module/tensors.h"

namespace chimera {
namespace {

/// Memory for a matrix [rows, cols] of F32.
Result<std::shared_ptr<float[]>> floats(int64_t rows, int64_t cols) {
  std::shared_ptr<float[]> memory(new (std::nothrow) float[static_cast<size_t>(rows * cols)]);
  if (memory == nullptr) {
    return Status(Code::kResourceExhausted,
                  fmt::format("no memory for a part of an adapter, [{}, {}]", rows, cols));
  }
  return memory;
}

Matrix matrix_of(std::shared_ptr<float[]> memory, int64_t rows, int64_t cols) {
  const float* data = memory.get();
  return {data, WeightFormat::kF32, rows, cols, std::move(memory)};
}

/// `from` [rows, cols], columns [first, first + count), as [rows, count].
Result<Matrix> columns_of(const Matrix& from, int64_t first, int64_t count) {
  auto memory = floats(from.rows, count);
  if (!memory.ok()) return memory.status();
  const auto* data = static_cast<const float*>(from.data);
  for (int64_t r = 0; r < from.rows; ++r)
    std::memcpy(memory->get() + r * count, data + r * from.cols + first,
                static_cast<size_t>(count) * sizeof(float));
  return matrix_of(std::move(*memory), from.rows, count);
}

class Builder {
 public:
  explicit Builder(const ModelConfig& config) : config_(config) {
    adapter_->backbone.layers.resize(static_cast<size_t>(config.num_layers));
    adapter_->experts.resize(static_cast<size_t>(config.num_layers));
  }

  Status add(const StoredChange& stored) {
    Result<LowRank> change = low_rank(stored);
    if (!change.ok()) return change.status();
    const AdapterTarget& at = stored.target;
    const auto layer = static_cast<size_t>(at.layer);
    if (at.expert >= 0) {
      std::vector<ExpertChange>& experts = adapter_->experts[layer];
      experts.resize(static_cast<size_t>(config_.num_experts));
      ExpertChange& expert = experts[static_cast<size_t>(at.expert)];
      LowRank* const parts[] = {&expert.gate, &expert.up, &expert.down};
      if (parts[at.projection]->rank() > 0) {
        return {Code::kFailedPrecondition,
                fmt::format("found two changes of layer {}, expert {}, {} (expected one)", at.layer,
                            at.expert, std::array{"gate", "up", "down"}[at.projection])};
      }
      *parts[at.projection] = std::move(*change);
      return {};
    }
    LayerAdapter& part = adapter_->backbone.layers[layer];
    if (at.role == TensorRole::kKvB) return cut(stored, *change, part);
    part.changes.emplace_back(at.role, std::move(*change));
    return {};
  }

  std::shared_ptr<Adapter> take(uint64_t file_bytes) {
    adapter_->bytes = made_ + file_bytes;
    return std::move(adapter_);
  }

 private:
  Result<LowRank> low_rank(const StoredChange& stored) {
    LowRank out;
    out.scale = static_cast<float>(stored.scale);
    const int64_t rank = stored.a.shape[0];
    Result<Matrix> a = to_matrix(stored.a, rank, stored.target.inputs, Precision::kF32);
    if (!a.ok()) return a.status();
    if (stored.a.dtype == DType::kF16 || stored.copied) made_ += a->bytes();
    out.a = std::move(*a);
    const Result<std::vector<float>> b = matrix_to_f32(stored.b, stored.target.outputs, rank);
    if (!b.ok()) return b.status();
    auto turned = floats(rank, stored.target.outputs);
    if (!turned.ok()) return turned.status();
    for (int64_t n = 0; n < stored.target.outputs; ++n) {
      for (int64_t k = 0; k < rank; ++k)
        turned->get()[k * stored.target.outputs + n] = (*b)[static_cast<size_t>(n * rank + k)];
    }
    out.b = matrix_of(std::move(*turned), rank, stored.target.outputs);
    made_ += out.b.bytes();
    return out;
  }

  /// With W_uk and W_uv of a head changed by B_k A and B_v A, what is added is
  /// A^T (B_k^T q_nope) to its query in latent space, and B_v (A c) to its values.
  Status cut(const StoredChange& stored, const LowRank& whole, LayerAdapter& out) {
    const int64_t keys = config_.mla->qk_nope_head_dim;
    const int64_t values = config_.v_head_dim;
    const Result<std::vector<float>> a =
        matrix_to_f32(stored.a, whole.rank(), stored.target.inputs);
    if (!a.ok()) return a.status();
    auto wide = floats(whole.rank(), whole.inputs());
    if (!wide.ok()) return wide.status();
    std::memcpy(wide->get(), a->data(), a->size() * sizeof(float));
    const Matrix a32 = matrix_of(std::move(*wide), whole.rank(), whole.inputs());
    made_ += a32.bytes();
    for (int64_t h = 0; h < config_.num_heads; ++h) {
      Result<Matrix> k = columns_of(whole.b, h * (keys + values), keys);
      Result<Matrix> v = columns_of(whole.b, h * (keys + values) + keys, values);
      if (!k.ok()) return k.status();
      if (!v.ok()) return v.status();
      out.k_up.push_back({std::move(*k), a32, whole.scale});
      out.v_up.push_back({a32, std::move(*v), whole.scale});
    }
    return {};
  }

  const ModelConfig& config_;
  std::shared_ptr<Adapter> adapter_ = std::make_shared<Adapter>();
  uint64_t made_ = 0;
};

}  // namespace

Result<std::shared_ptr<const Adapter>> build_adapter(const std::vector<StoredChange>& changes,
                                                     const ModelConfig& config,
                                                     uint64_t file_bytes) {
  Builder builder(config);
  for (const StoredChange& change : changes) CHIMERA_RETURN_IF_ERROR(builder.add(change));
  return std::shared_ptr<const Adapter>(builder.take(file_bytes));
}

uint64_t built_bytes(const SafetensorsFile& file, int64_t experts) {
  uint64_t bytes = 0;
  for (const TensorView& tensor : file.tensors()) {
    const auto within = [&](const char* part) {
      return tensor.name.find(part) != std::string::npos;
    };
    const bool shared = tensor.shape.size() == 3 && tensor.shape[0] == 1;
    const bool stack =
        tensor.shape.size() == 3 || within(".experts.lora_") || within(".base_layer.lora_");
    if (!stack && !within(".lora_B.") && tensor.dtype != DType::kF16) continue;
    const uint64_t once = static_cast<uint64_t>(tensor.elements()) * sizeof(float);
    // What experts share each of them has for itself; gate and up each widen what they share.
    bytes += once * (shared ? static_cast<uint64_t>(experts) : 1) * (stack ? 2 : 1);
  }
  return bytes;
}

}  // namespace chimera
