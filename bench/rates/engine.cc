#include "rates/engine.h"

#include <algorithm>
#include <stdexcept>

#include "backbone/families/needed_tensors.h"
#include "experts/kinds/weights.h"
#include "experts/module/base_tensors.h"
#include "stats.h"

namespace chimera::bench {
namespace {

template <class T>
T must_have(Result<T> result) {
  if (!result.ok()) throw std::runtime_error(result.status().to_string());
  return std::move(*result);
}

void must_be(const Status& status) {
  if (!status.ok()) throw std::runtime_error(status.to_string());
}

}  // namespace

EngineOnly::EngineOnly(const std::string& path, const PrecisionPlan& precision, int threads)
    : pool_(threads > 0 ? threads : auto_threads()) {
  const Checkpoint checkpoint = must_have(Checkpoint::open(path, Residency::kAutomatic));
  backbone_ = must_have(Backbone::load(checkpoint, precision));
  const auto base = must_have(load_base_experts(checkpoint, config(), precision.experts));
  count(checkpoint, *base);
  const auto table = must_have(RoutingTableBuilder(config(), base).build(1, Composition(), {}));
  view_ = must_have(make_route_view(table, ModuleMask{0}, {}));
  router_ = std::make_unique<MoeRouter>(config(), best_kernels(), pool_);
}

void EngineOnly::count(const Checkpoint& checkpoint, const Module& base) {
  const ModelConfig& c = config();
  every_pass_bytes_ = static_cast<double>(backbone_->resident_bytes());
  for (const NeededTensor& t : needed_model_tensors(c)) {
    if (t.role == TensorRole::kFinalNorm) continue;
    const auto elements = static_cast<double>(t.shape[0] * t.shape[1]);
    const bool is_head = t.role == TensorRole::kHead || c.tie_word_embeddings;
    if (is_head) head_products_ = elements;
    // One row of an embedding is read, unless it is the head as well.
    const bool table_alone = t.role == TensorRole::kEmbedding &&
                             (!c.tie_word_embeddings || packed_format(backbone_->precision().head));
    const TensorView* stored = checkpoint.find(t.name);
    if (table_alone && stored != nullptr)
      every_pass_bytes_ -= static_cast<double>(
          weight_bytes(kept_format(stored->dtype, Precision::kF32), t.shape[0], t.shape[1]));
  }
  expert_bytes_.assign(static_cast<size_t>(c.num_layers), 0.0);
  for (int64_t l = 0; l < c.num_layers; ++l)
    for (const NeededTensor& t : needed_layer_tensors(c, l))
      if (t.shape.size() == 2) token_products_ += static_cast<double>(t.shape[0] * t.shape[1]);
  for (const auto& [layer, part] : base.layers) {
    if (part.experts.empty()) continue;
    const Expert& expert = *part.experts.front();
    expert_bytes_[static_cast<size_t>(layer)] = static_cast<double>(expert.resident_bytes());
    const auto gate = static_cast<double>(part.gate_weight.size());
    every_pass_bytes_ += gate * sizeof(float);
    token_products_ += gate + 3.0 * static_cast<double>(c.num_experts_per_tok * c.hidden_size *
                                                        c.intermediate_size);
  }
  note_format(checkpoint);
}

void EngineOnly::note_format(const Checkpoint& checkpoint) {
  const std::vector<int64_t> layers = moe_layers(config());
  if (layers.empty()) return;
  const BaseLayer layer = must_have(read_base_layer(checkpoint, config(), layers.front()));
  const StoredProjection& gate = layer.experts.front()[0];
  const DType stored = gate.weight.tensor.dtype;
  const Precision p = backbone_->precision().experts;
  if (gate.encoding == Encoding::kPlain && (packed_format(p) || !is_block_type(stored))) {
    expert_format_ = kept_format(stored, p);
    return;
  }
  if (packed_format(p)) {  // MXFP4 as it is, FP8 as what it is packed into
    expert_format_ =
        gate.encoding == Encoding::kMxfp4 ? WeightFormat::kMXFP4 : kept_format(DType::kF32, p);
    return;
  }
  widened_ = gate.encoding == Encoding::kMxfp4 ? "MXFP4" : std::string(dtype_name(stored));
}

double EngineOnly::bytes_of_pass(const RouterStats& routed) const {
  double bytes = every_pass_bytes_;
  for (size_t l = 0; l < routed.layers.size(); ++l) {
    for (const auto& [module, tokens] : routed.layers[l].expert_tokens) {
      const auto used =
          std::count_if(tokens.begin(), tokens.end(), [](uint64_t n) { return n > 0; });
      bytes += static_cast<double>(used) * expert_bytes_[l];
    }
  }
  return bytes;
}

EngineOnly::Streams::Streams(EngineOnly& engine, int count, int64_t most) : engine_(engine) {
  constexpr int64_t kBlockTokens = 16;
  cache_ = must_have(KvCache::create(
      engine.config(), {.block_tokens = kBlockTokens,
                        .blocks = count * ((most + kBlockTokens - 1) / kBlockTokens)}));
  for (int i = 0; i < count; ++i) {
    kvs_.push_back(std::make_unique<KvSequence>(cache_.get()));
    must_be(kvs_.back()->reserve(most));
  }
}

double EngineOnly::Streams::prefill(int64_t tokens, int64_t chunk) {
  const auto count = static_cast<int64_t>(kvs_.size());
  const int64_t step = std::max<int64_t>(1, chunk / count);
  const double start = now_s();
  for (int64_t done = 0; done < tokens;) {
    const int64_t each = std::min(step, tokens - done);
    std::vector<int32_t> ids;
    for (int64_t i = 0; i < count * each; ++i) {
      random_ = random_ * 6364136223846793005ull + 1442695040888963407ull;
      ids.push_back(static_cast<int32_t>((random_ >> 33) %
                                         static_cast<uint64_t>(engine_.config().vocab_size)));
    }
    done += each;
    pass(ids, each, done == tokens);
  }
  return now_s() - start;
}

EngineOnly::Streams::Decoded EngineOnly::Streams::decode(int64_t steps) {
  Decoded decoded;
  for (int64_t s = 0; s < steps; ++s) {
    routed_ = {};
    decoded.seconds += prefill(1, static_cast<int64_t>(kvs_.size()));
    decoded.bytes += engine_.bytes_of_pass(routed_);
  }
  return decoded;
}

void EngineOnly::Streams::pass(const std::vector<int32_t>& tokens, int64_t each, bool logits) {
  std::vector<BatchSegment> segments;
  std::vector<RoutedSegment> routed;
  for (size_t i = 0; i < kvs_.size(); ++i) {
    BatchSegment segment;
    segment.tokens =
        std::span(tokens).subspan(i * static_cast<size_t>(each), static_cast<size_t>(each));
    segment.position = position_;
    segment.kv = kvs_[i].get();
    segment.logits = logits ? BatchSegment::Logits::kLast : BatchSegment::Logits::kNone;
    segments.push_back(segment);
    RoutedSegment routes;
    routes.view = engine_.view_.get();
    routes.rows = each;
    routed.push_back(std::move(routes));
  }
  engine_.router_->begin_pass(routed, &routed_);
  must_be(engine_.backbone_->forward(segments, *engine_.router_, best_kernels(), engine_.pool_,
                                     engine_.workspace_));
  for (const RoutedSegment& r : routed) must_be(r.failure);
  position_ += each;
}

}  // namespace chimera::bench
