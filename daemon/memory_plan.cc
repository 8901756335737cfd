#include "daemon/memory_plan.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>

#include "base/bytes.h"
#include "base/log/log.h"
#include "compute/kernels/kernels.h"
#include "compute/tensor/convert.h"
#include "daemon/engine/sequence/drafter.h"

namespace chimera {
namespace {

// A token event with its text, waiting.
constexpr uint64_t kEventBytes = 256;

/// Gate rows of one routing table without modules.
uint64_t gate_bytes(const Module& base) {
  uint64_t bytes = 0;
  for (const auto& [index, layer] : base.layers) bytes += layer.gate_weight.size() * sizeof(float);
  return bytes;
}

/// Of one tensor, in the narrowest format that its class may be kept in.
uint64_t least_bytes(const TensorView& tensor, const PrecisionPlan& plan) {
  const auto stored = static_cast<uint64_t>(tensor.bytes.size());
  const bool numbers =
      tensor.dtype == DType::kF32 || tensor.dtype == DType::kF16 || tensor.dtype == DType::kBF16;
  if (!numbers || tensor.shape.size() != 2) return stored;
  const auto kept = [&](Precision precision) {
    const WeightFormat format = kept_format(tensor.dtype, precision);
    return static_cast<uint64_t>(weight_bytes(format, tensor.shape[0], tensor.shape[1]));
  };
  if (tensor.name.find(".experts.") != std::string::npos) return kept(plan.experts);
  return std::min(
      {kept(Precision::kF32), kept(plan.attention), kept(plan.head), kept(plan.dense())});
}

/// What passes widen at a time of a cache with two bytes a number.
uint64_t widened_floats(const ModelConfig& model, const EngineOptions& options) {
  if (options.kv_format == KvFormat::kF32) return 0;
  const int64_t context =
      usable_context(model, options) * (model.key_width() + model.value_width());
  return static_cast<uint64_t>(std::max(context, kWidenedFloats));
}

}  // namespace

uint64_t least_model_bytes(const Checkpoint& checkpoint, const PrecisionPlan& precision) {
  uint64_t bytes = 0;
  for (const auto& file : checkpoint.files()) {
    for (const TensorView& tensor : file->tensors()) bytes += least_bytes(tensor, precision);
  }
  return bytes;
}

uint64_t scratch_bytes(const ModelConfig& model, const EngineOptions& options) {
  const auto n = [](int64_t value) { return static_cast<uint64_t>(value); };
  const int64_t guesses = options.ngram_speculation ? Drafter::kMost : 0;
  const uint64_t streams = n(options.max_sequences * (1 + guesses));
  const uint64_t logits = streams + n(options.prefill_chunk);
  // A lone prompt leaves logits of its last row alone.
  const uint64_t rows =
      std::max(logits, n(std::max(options.prefill_chunk, options.lone_chunk)) + uint64_t{1});
  const uint64_t heads = n(model.num_heads) * n(model.head_dim + model.v_head_dim);
  const uint64_t latent =
      model.mla ? n(model.num_heads) * n(model.mla->kv_lora_rank) * 2 + n(model.key_width()) : 0;
  const uint64_t wide =
      std::max({n(model.dense_intermediate_size), n(model.shared_intermediate_size), uint64_t{0}});
  // Per row: residual, normed, feed-forward and their like; queries, keys, values, attention; the
  // rows of its experts with what is between their matrices; hidden state and logits.
  const uint64_t row =
      7 * n(model.hidden_size) + heads + n(model.key_width()) + n(model.value_width()) + latent +
      2 * wide +
      n(model.num_experts_per_tok) * (2 * n(model.hidden_size) + 2 * n(model.intermediate_size)) +
      n(model.num_experts);
  // Of each share of attention's rows, one for each query that a read of the cache serves.
  const int64_t scratch = usable_context(model, options) * kAttentionQueries;
  const uint64_t scores = n(attention_shares(options.threads, scratch)) * n(scratch);
  return (rows * row + logits * n(model.vocab_size) + scores + widened_floats(model, options)) *
         sizeof(float);
}

uint64_t queue_bytes(const DeploymentConfig& config) {
  return static_cast<uint64_t>(config.serve.max_sequences * config.serve.max_events) * kEventBytes;
}

uint64_t planned_kv_bytes(const DeploymentConfig& config, const ModelConfig& model,
                          const EngineOptions& options, uint64_t free) {
  const uint64_t full = full_kv_bytes(model, options);
  const uint64_t most = std::min(full, config.memory.kv.value_or(full));
  const uint64_t room = config.memory.kv ? free : free / 2;
  return std::min(most, std::max(room, least_kv_bytes(model, options)));
}

std::string kv_text(const ModelConfig& model, const EngineOptions& options, uint64_t planned) {
  const uint64_t full = full_kv_bytes(model, options);
  const int64_t trained = model.max_position_embeddings;
  return fmt::format("{}{}{}, which {} sequences of {} tokens fill", bytes_text(planned),
                     planned < full ? " of " + bytes_text(full) : std::string(),
                     options.kv_format == KvFormat::kF32
                         ? std::string()
                         : " in " + kKvFormatNames.text(options.kv_format),
                     options.max_sequences,
                     trained > 0 ? std::min(options.max_context, trained) : options.max_context);
}

MemoryPlan::MemoryPlan(const DeploymentConfig* config)
    : config_(*config), ledger_(memory_budget(config->memory.budget, memory_limit())) {
  if (config_.memory.adapters) adapters_.emplace(*config_.memory.adapters);
}

Status MemoryPlan::check_model() const {
  const std::string& dir = config_.backbone.path;
  const auto checkpoint = Checkpoint::open(dir, Residency::kMapped);
  if (!checkpoint.ok()) return {};  // whoever loads it says why
  return ledger_.check(least_model_bytes(*checkpoint, config_.backbone.precision),
                       "backbone " + dir);
}

Status MemoryPlan::hold(MemoryUse use, uint64_t bytes, const std::string& what) {
  Result<Ledger::Place> place = ledger_.take(use, "", bytes, what);
  if (!place.ok()) return place.status();
  held_.push_back(std::move(*place));
  return {};
}

Status MemoryPlan::take(const LoadedBackbone& model, const EngineOptions& options) {
  const ModelConfig& config = model.backbone->config();
  CHIMERA_RETURN_IF_ERROR(
      hold(MemoryUse::kBackbone, model.backbone->resident_bytes(), "the backbone"));
  CHIMERA_RETURN_IF_ERROR(take_experts(*model.base));
  CHIMERA_RETURN_IF_ERROR(
      hold(MemoryUse::kScratch, scratch_bytes(config, options), "scratch memory"));
  CHIMERA_RETURN_IF_ERROR(hold(
      MemoryUse::kTables, gate_bytes(*model.base) * static_cast<uint64_t>(options.max_live_epochs),
      "routing tables"));
  CHIMERA_RETURN_IF_ERROR(hold(MemoryUse::kQueues, queue_bytes(config_), "answers that wait"));
  if (options.gate_sample_bytes > 0) {
    CHIMERA_RETURN_IF_ERROR(
        hold(MemoryUse::kSamples, options.gate_sample_bytes, "samples of what gates see"));
  }
  if (config_.memory.adapters)
    CHIMERA_RETURN_IF_ERROR(
        hold(MemoryUse::kAdapters, *config_.memory.adapters, "adapters (memory.adapters)"));
  cache_bytes_ = planned_kv_bytes(config_, config, options, 0);
  Result<Ledger::Place> cache =
      ledger_.take(MemoryUse::kKeyValue, "", cache_bytes_, "the key/value cache");
  if (!cache.ok())
    return {cache.status().code(), cache.status().message(),
            "lower serve.max_context or memory.kv, or raise memory.budget"};
  cache_ = std::move(*cache);
  return {};
}

Status MemoryPlan::take_experts(const Module& base) {
  auto place =
      ledger_.take(MemoryUse::kExperts, "", base.resident_bytes(), "the experts of the checkpoint");
  if (!place.ok()) return place.status();
  const auto experts = std::make_shared<Ledger::Place>(std::move(*place));
  experts_ = experts;
  if (base.residency == nullptr) return {};
  base.residency->set_account(
      {.take =
           [experts](uint64_t bytes) {
             return experts->grow_back(bytes, "experts of the backbone, to be read again");
           },
       .give_back = [experts](uint64_t bytes) { experts->evict(bytes); },
       .problem =
           [](const Status& status) {
             log::warning("replaced_experts",
                          {{"reason", status.message()}, {"hint", status.hint()}});
           }});
  return {};
}

uint64_t MemoryPlan::settle_cache(const LoadedBackbone& model, const EngineOptions& options) {
  const ModelConfig& config = model.backbone->config();
  const Ledger::Account before = ledger_.account();
  const bool unlimited = before.budget.bytes == 0;
  cache_bytes_ = planned_kv_bytes(
      config_, config, options,
      unlimited ? std::numeric_limits<uint64_t>::max() : before.free() + cache_bytes_);
  cache_.correct(cache_bytes_);
  const Ledger::Account account = ledger_.account();
  log::info("memory", {{"budget_bytes", account.budget.bytes},
                       {"of", account.budget.source},
                       {"used_bytes", account.used},
                       {"free_bytes", account.free()},
                       {"held", describe(account)}});
  if (cache_bytes_ < full_kv_bytes(config, options)) {
    log::info("kv_cache_limited",
              {{"holds", kv_text(config, options, cache_bytes_)},
               {"hint",
                "with more, sequences wait or are computed again later; lower "
                "serve.max_sequences or serve.max_context, or raise memory.kv or "
                "memory.budget"}});
  }
  return cache_bytes_;
}

}  // namespace chimera
