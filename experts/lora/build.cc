#include "experts/lora/build.h"

#include <fmt/format.h>

#include <array>
#include <cstddef>

#include "base/threads/background.h"
#include "compute/kernels/rank_panels.h"
#include "compute/tensor/convert.h"
#include "compute/tensor/memory.h"
#include "experts/lora/magnitude.h"

namespace chimera {
namespace {

/// The layouts in which a matrix of an adapter is read: steps from one number to the next.
struct Steps {
  int64_t output, rank;
};

Result<std::shared_ptr<std::byte[]>> memory_for(int64_t rows, int64_t cols, WeightFormat format) {
  auto memory = allocate_weights(static_cast<size_t>(weight_bytes(format, rows, cols)));
  if (memory == nullptr) {
    return Status(Code::kResourceExhausted,
                  fmt::format("no memory for a part of an adapter, [{}, {}]", rows, cols));
  }
  return memory;
}

/// Calls use(T()) for the type of the numbers of a matrix, which is F32, BF16 or F16.
template <class Use>
void with_type(WeightFormat format, const Use& use) {
  if (format == WeightFormat::kBF16 || format == WeightFormat::kF16) return use(uint16_t());
  use(float());
}

/// `from` as the panels of B [outputs, ranks] (rank_panels.h), beginning at element `first`.
Result<Matrix> panels_of(const Matrix& from, int64_t first, Steps steps, int64_t outputs,
                         int64_t ranks) {
  auto memory = memory_for(ranks, outputs, from.format);
  if (!memory.ok()) return memory.status();
  with_type(from.format, [&](auto type) {
    using T = decltype(type);
    to_rank_panels(static_cast<const T*>(from.data) + first, steps.output, steps.rank, outputs,
                   ranks, reinterpret_cast<T*>(memory->get()));
  });
  return Matrix{memory->get(), from.format, ranks, outputs, std::move(*memory)};
}

/// Rows [first, first + count) of `from`, turned: [cols, count].
Result<Matrix> turned_rows(const Matrix& from, int64_t first, int64_t count) {
  auto memory = memory_for(from.cols, count, from.format);
  if (!memory.ok()) return memory.status();
  with_type(from.format, [&](auto type) {
    using T = decltype(type);
    const auto* in = static_cast<const T*>(from.data) + first * from.cols;
    auto* out = reinterpret_cast<T*>(memory->get());
    for (int64_t k = 0; k < from.cols; ++k) {
      for (int64_t n = 0; n < count; ++n) *out++ = in[n * from.cols + k];
    }
  });
  return Matrix{memory->get(), from.format, from.cols, count, std::move(*memory)};
}

class Builder {
 public:
  Builder(const ModelConfig& config, const BaseWeights* weights)
      : config_(config), weights_(weights) {
    adapter_->backbone.layers.resize(static_cast<size_t>(config.num_layers));
    adapter_->experts.resize(static_cast<size_t>(config.num_layers));
  }

  Status add(const StoredChange& stored) {
    const AdapterTarget& at = stored.target;
    const int64_t rank = stored.a.shape[0];
    Result<Matrix> a = to_matrix(stored.a, rank, at.inputs, Precision::kF32);
    if (!a.ok()) return a.status();
    if (stored.copied) made_ += a->bytes();
    // Only read here: its memory is given back with the file's, where that is a copy.
    const Result<Matrix> b = to_matrix(stored.b, at.outputs, rank, Precision::kF32);
    if (!b.ok()) return b.status();
    const auto scale = static_cast<float>(stored.scale);
    const auto layer = static_cast<size_t>(at.layer);
    if (at.expert < 0 && at.role == TensorRole::kKvB)
      return cut(*a, *b, scale, adapter_->backbone.layers[layer]);
    Result<Matrix> panels = panels_of(*b, 0, {.output = rank, .rank = 1}, at.outputs, rank);
    if (!panels.ok()) return panels.status();
    made_ += panels->bytes();
    LowRank change{std::move(*a), std::move(*panels), scale};
    if (stored.magnitude) CHIMERA_RETURN_IF_ERROR(add_factors(stored, change));
    if (at.expert >= 0) return add_to_expert(at, std::move(change));
    adapter_->backbone.layers[layer].changes.emplace_back(at.role, std::move(change));
    return {};
  }

  std::shared_ptr<Adapter> take(uint64_t file_bytes) {
    adapter_->bytes = made_ + file_bytes;
    return std::move(adapter_);
  }

 private:
  Status add_factors(const StoredChange& stored, LowRank& change) {
    if (weights_ == nullptr) {
      return {Code::kFailedPrecondition,
              "found an adapter with use_dora, and no weights in memory "
              "(expected those that it changes, for their norms)"};
    }
    auto factors = output_factors(stored, *weights_);
    if (!factors.ok()) return factors.status();
    change.factors = std::move(*factors);
    made_ += change.factors->size() * sizeof(float);
    return {};
  }

  Status add_to_expert(const AdapterTarget& at, LowRank change) {
    std::vector<ExpertChange>& experts = adapter_->experts[static_cast<size_t>(at.layer)];
    experts.resize(static_cast<size_t>(config_.num_experts));
    ExpertChange& expert = experts[static_cast<size_t>(at.expert)];
    LowRank* const parts[] = {&expert.gate, &expert.up, &expert.down};
    if (parts[at.projection]->rank() > 0) {
      return {Code::kFailedPrecondition,
              fmt::format("found two changes of layer {}, expert {}, {} (expected one)", at.layer,
                          at.expert, std::array{"gate", "up", "down"}[at.projection])};
    }
    *parts[at.projection] = std::move(change);
    return {};
  }

  /// With W_uk and W_uv of a head changed by B_k A and B_v A, what is added is
  /// A^T (B_k^T q_nope) to its query in latent space, and B_v (A c) to its values.
  Status cut(const Matrix& a, const Matrix& b, float scale, LayerAdapter& out) {
    const int64_t keys = config_.mla->qk_nope_head_dim;
    const int64_t values = config_.v_head_dim;
    const int64_t rank = a.rows;
    const Result<Matrix> a_up = panels_of(a, 0, {.output = 1, .rank = a.cols}, a.cols, rank);
    if (!a_up.ok()) return a_up.status();
    made_ += a_up->bytes();
    for (int64_t h = 0; h < config_.num_heads; ++h) {
      const int64_t first = h * (keys + values);
      Result<Matrix> k = turned_rows(b, first, keys);
      if (!k.ok()) return k.status();
      Result<Matrix> v =
          panels_of(b, (first + keys) * rank, {.output = rank, .rank = 1}, values, rank);
      if (!v.ok()) return v.status();
      made_ += k->bytes() + v->bytes();
      out.k_up.push_back({std::move(*k), *a_up, scale});
      out.v_up.push_back({a, std::move(*v), scale});
    }
    return {};
  }

  const ModelConfig& config_;
  const BaseWeights* const weights_;
  std::shared_ptr<Adapter> adapter_ = std::make_shared<Adapter>();
  uint64_t made_ = 0;
};

}  // namespace

Result<std::shared_ptr<const Adapter>> build_adapter(const std::vector<StoredChange>& changes,
                                                     const ModelConfig& config, uint64_t file_bytes,
                                                     const BaseWeights* weights) {
  Builder builder(config, weights);
  for (const StoredChange& change : changes) {
    CHIMERA_RETURN_IF_ERROR(builder.add(change));
    give_way();
  }
  return std::shared_ptr<const Adapter>(builder.take(file_bytes));
}

uint64_t built_bytes(const SafetensorsFile& file, int64_t experts) {
  uint64_t bytes = 0;
  for (const TensorView& tensor : file.tensors()) {
    const auto within = [&](const char* part) {
      return tensor.name.find(part) != std::string::npos;
    };
    if (within(".lora_magnitude_vector"))
      bytes += static_cast<uint64_t>(tensor.elements()) * sizeof(float);
    const bool shared = tensor.shape.size() == 3 && tensor.shape[0] == 1;
    const bool stack =
        tensor.shape.size() == 3 || within(".experts.lora_") || within(".base_layer.lora_");
    // The A of latent attention's kv_b serves its keys the other way round.
    const bool turned = within("kv_b_proj.lora_A.");
    if (!stack && !within(".lora_B.") && !turned) continue;
    const uint64_t once = tensor.bytes.size();
    // What experts share each of them has for itself; gate and up each have what they share.
    bytes += once * (shared ? static_cast<uint64_t>(experts) : 1) * (stack ? 2 : 1);
  }
  return bytes;
}

}  // namespace chimera
