// The engine's public calls, each handed to the part it concerns (impl.h).
#include "daemon/engine/engine.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "daemon/engine/impl.h"
#include "daemon/engine/request_check.h"
#include "daemon/engine/sequence/module_selection.h"

namespace chimera {
namespace {

Status check_options(const EngineOptions& options) {
  const auto positive = [](const char* name, int64_t value) -> Status {
    if (value >= 1) return {};
    return {Code::kInvalidArgument, fmt::format("{} is {} (expected at least 1)", name, value),
            "correct it in the deployment file"};
  };
  CHIMERA_RETURN_IF_ERROR(positive("threads", options.threads));
  CHIMERA_RETURN_IF_ERROR(positive("max_sequences", options.max_sequences));
  CHIMERA_RETURN_IF_ERROR(positive("max_context", options.max_context));
  CHIMERA_RETURN_IF_ERROR(positive("max_queue", options.max_queue));
  CHIMERA_RETURN_IF_ERROR(positive("prefill_chunk", options.prefill_chunk));
  if (!(options.step_target_ms >= 1.0))
    return {Code::kInvalidArgument,
            fmt::format("step_target_ms is {} (expected at least 1)", options.step_target_ms),
            "correct it in the deployment file"};
  return positive("max_live_epochs", options.max_live_epochs);
}

/// What it takes at most: of tokens, and of memory for the parts of its answer that are large.
void estimate(EngineRequest& request, const ModelConfig& config, const EngineOptions& options) {
  const auto n = static_cast<int64_t>(request.tokens.size());
  request.expected_tokens = n;
  if (request.kind == EngineRequest::Kind::kGenerate) {
    request.expected_tokens += std::min(request.max_tokens, options.max_context - n);
  }
  const auto rows = static_cast<uint64_t>(n);
  if (request.want_logits) {
    request.output_bytes += rows * static_cast<uint64_t>(config.vocab_size) * sizeof(float);
  }
  if (request.want_routing) {
    // An id and a weight of each choice, and both once more as text: some 20 characters.
    const auto choices = static_cast<uint64_t>(config.num_layers * config.num_experts_per_tok);
    request.output_bytes += rows * choices * (sizeof(int32_t) + sizeof(float) + 20);
  }
}

int64_t blocks_of(const ModelConfig& config, const EngineOptions& options) {
  constexpr int64_t kTokens = KvCacheOptions{}.block_tokens;
  return (usable_context(config, options) + kTokens - 1) / kTokens;
}

/// The pool within `kv_bytes`: one context at least, so that the oldest sequence can always go on.
Result<KvCacheOptions> cache_options(const ModelConfig& config, const EngineOptions& options) {
  KvCacheOptions cache;
  cache.prefix_cache = options.prefix_cache;
  cache.format = options.kv_format;
  const int64_t context = blocks_of(config, options);
  cache.blocks = options.max_sequences * context;
  if (options.kv_bytes) {
    const uint64_t block = KvCache::block_bytes(config, cache.block_tokens, cache.format);
    const uint64_t affordable = *options.kv_bytes / block;
    if (affordable < static_cast<uint64_t>(context))
      return Status(
          Code::kResourceExhausted,
          fmt::format("key/value cache: {} bytes hold {} tokens (expected {}, one context, which "
                      "takes {} bytes)",
                      *options.kv_bytes, affordable * static_cast<uint64_t>(cache.block_tokens),
                      usable_context(config, options), static_cast<uint64_t>(context) * block),
          "lower serve.max_context, or raise memory.kv or memory.budget");
    if (affordable < static_cast<uint64_t>(cache.blocks))
      cache.blocks = static_cast<int64_t>(affordable);
  }
  // Prefixes of a few conversations stay even where one client comes at a time; more than a quarter
  // of the cache is only taken by those that run.
  cache.keep_cached = cache.blocks / 4;
  return cache;
}

}  // namespace

int64_t usable_context(const ModelConfig& config, const EngineOptions& options) {
  const int64_t trained = config.max_position_embeddings;
  return trained > 0 ? std::min(options.max_context, trained) : options.max_context;
}

uint64_t full_kv_bytes(const ModelConfig& config, const EngineOptions& options) {
  return least_kv_bytes(config, options) * static_cast<uint64_t>(options.max_sequences);
}

uint64_t least_kv_bytes(const ModelConfig& config, const EngineOptions& options) {
  return static_cast<uint64_t>(blocks_of(config, options)) *
         KvCache::block_bytes(config, KvCacheOptions{}.block_tokens, options.kv_format);
}

Result<std::unique_ptr<Engine>> Engine::create(std::shared_ptr<const Backbone> backbone,
                                               std::shared_ptr<const Tokenizer> tokenizer,
                                               std::shared_ptr<const RoutingTable> table,
                                               EngineOptions options) {
  if (!backbone || !table)
    return Status(Code::kInvalidArgument, "the engine needs a backbone and a first routing table");
  CHIMERA_RETURN_IF_ERROR(check_options(options));
  const ModelConfig& config = backbone->config();
  options.max_context = usable_context(config, options);
  Result<KvCacheOptions> cache = cache_options(config, options);
  if (!cache.ok()) return cache.status();
  Result<std::unique_ptr<KvCache>> kv = KvCache::create(config, *cache);
  if (!kv.ok()) return kv.status().with_context("key/value cache");
  return std::unique_ptr<Engine>(new Engine(std::make_unique<Impl>(
      std::move(backbone), std::move(tokenizer), std::move(table), options, std::move(*kv))));
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

Result<RequestId> Engine::submit(EngineRequest request, std::shared_ptr<EventSink> sink) {
  Impl& impl = *impl_;
  Status bad =
      sink ? check_request(request, impl.backbone->config(), impl.options, impl.has_tokenizer)
           : Status(Code::kInvalidArgument, "the request has no event sink");
  if (!bad.ok()) {
    impl.queue.count_refusal();
    return bad;
  }
  if (request.arrived == Clock::time_point{}) request.arrived = Clock::now();
  estimate(request, impl.backbone->config(), impl.options);
  // With the table held still and without a copy of the pointer: once a revocation has replaced it,
  // no caller in here still holds the old one, and none adds a request for what is gone.
  return impl.board.with_table(request.lot, [&](const RoutingTable& table) -> Result<RequestId> {
    if (Status unknown = check_modules(request.modules, table); !unknown.ok()) {
      impl.queue.count_refusal();
      return unknown;
    }
    return impl.queue.add(std::move(request), std::move(sink));
  });
}

void Engine::cancel(RequestId id) { impl_->queue.cancel(id); }

void Engine::entitle(RequestId id, ModuleRightsPtr rights) {
  impl_->queue.entitle(id, std::move(rights));
}

Status Engine::publish(std::shared_ptr<const RoutingTable> table, InFlight in_flight,
                       std::chrono::milliseconds timeout) {
  return impl_->board.publish(std::move(table), in_flight, timeout);
}

Status Engine::revoke(const std::string& module, std::shared_ptr<const RoutingTable> table) {
  return impl_->board.revoke(module, std::move(table));
}

Status Engine::publish_canary(std::shared_ptr<const RoutingTable> table, double fraction,
                              std::chrono::milliseconds timeout) {
  return impl_->board.publish_canary(std::move(table), fraction, timeout);
}

Status Engine::withdraw_canary() { return impl_->board.withdraw_canary(); }

CanaryCounts Engine::canary() const { return impl_->statistics.read_canary(); }

PublishedEpoch Engine::current(const ModuleRightsPtr& rights) const {
  return impl_->board.with_table([&](const RoutingTable& table) {
    const ModuleMask mask = permitted(table, rights);
    return PublishedEpoch{table.epoch(), visible_composition(table, rights), table.top_k(mask),
                          table.notes(mask)};
  });
}

std::shared_ptr<const RoutingTable> Engine::table() const { return impl_->board.table(); }

std::vector<EpochInfo> Engine::epochs() const { return impl_->board.epochs(); }

EngineStats Engine::stats() const {
  EngineStats stats = impl_->statistics.read();
  const RequestQueue::Counts counts = impl_->queue.counts();
  stats.waiting = counts.waiting;
  stats.rejected = counts.refused;
  if (impl_->options.adapters != nullptr) stats.adapters = impl_->options.adapters->stats();
  return stats;
}

GateSamples::Copy Engine::gate_samples() const { return impl_->samples.copy(); }

Foreground* Engine::foreground() { return &impl_->foreground; }

bool Engine::drain(std::chrono::milliseconds timeout) { return impl_->queue.drain(timeout); }

}  // namespace chimera
