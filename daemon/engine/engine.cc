// The engine's public calls. What they trigger on the engine thread is in the other engine_*.cc.
#include "daemon/engine/engine.h"

#include <algorithm>
#include <utility>

#include <fmt/format.h>

#include "daemon/engine/impl.h"
#include "daemon/engine/module_selection.h"
#include "daemon/engine/request_check.h"

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
  return positive("max_live_epochs", options.max_live_epochs);
}

double percentile(std::vector<float> values, double fraction) {
  if (values.empty()) return 0.0;
  const auto at =
      values.begin() + static_cast<ptrdiff_t>(fraction * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

}  // namespace

Result<std::unique_ptr<Engine>> Engine::create(std::shared_ptr<const Backbone> backbone,
                                               std::shared_ptr<const Tokenizer> tokenizer,
                                               std::shared_ptr<const RoutingTable> table,
                                               EngineOptions options) {
  if (!backbone || !table)
    return Status(Code::kInvalidArgument, "the engine needs a backbone and a first routing table");
  CHIMERA_RETURN_IF_ERROR(check_options(options));
  const ModelConfig& config = backbone->config();
  // Positions past the trained range have no meaning; the smaller limit rules.
  if (config.max_position_embeddings > 0)
    options.max_context = std::min(options.max_context, config.max_position_embeddings);

  KvCacheOptions cache;
  cache.prefix_cache = options.prefix_cache;
  // Every slot can hold a full context at once: a free slot implies free blocks.
  cache.blocks =
      options.max_sequences * ((options.max_context + cache.block_tokens - 1) / cache.block_tokens);
  Result<std::unique_ptr<KvCache>> kv = KvCache::create(config, cache);
  if (!kv.ok()) return kv.status().with_context("key/value cache");
  auto impl = std::make_unique<Impl>(std::move(backbone), std::move(tokenizer), std::move(table),
                                     options, std::move(*kv));
  return std::unique_ptr<Engine>(new Engine(std::move(impl)));
}

Engine::Engine(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Engine::~Engine() = default;

Result<Engine::RequestId> Engine::submit(EngineRequest request, std::shared_ptr<EventSink> sink) {
  Impl& impl = *impl_;
  Status bad = sink ? check_request(request, impl.backbone->config(), impl.options,
                                    impl.tokenizer != nullptr)
                    : Status(Code::kInvalidArgument, "the request has no event sink");
  if (request.arrived == Clock::time_point{}) request.arrived = Clock::now();

  std::unique_lock lock(impl.mutex);
  // Under the lock and without a copy of the pointer: once a revocation has replaced the table,
  // no caller in here still holds the old one.
  if (bad.ok()) bad = check_modules(request.modules, *impl.table);
  if (bad.ok() && (impl.draining || impl.stopping))
    bad = {Code::kUnavailable, "the daemon is draining and takes no new requests",
           "send the request to another daemon, or again after the restart"};
  if (bad.ok() && static_cast<int64_t>(impl.waiting.size()) >= impl.options.max_queue)
    bad = {Code::kResourceExhausted,
           fmt::format("the queue is full: {} requests wait (limit {}, max_queue)",
                       impl.waiting.size(), impl.options.max_queue),
           "try again later, or raise serve.max_queue"};
  if (!bad.ok()) {
    ++impl.rejected;
    return bad;
  }
  const RequestId id = impl.next_id++;
  impl.outstanding.insert(id);
  impl.waiting.push_back({id, std::move(request), Ticket(std::move(sink))});
  lock.unlock();
  impl.wake.notify_one();
  return id;
}

void Engine::cancel(RequestId id) {
  {
    const std::lock_guard lock(impl_->mutex);
    if (impl_->outstanding.count(id) == 0) return;
    impl_->cancels.insert(id);
  }
  impl_->wake.notify_one();
}

Status Engine::publish(std::shared_ptr<const RoutingTable> table, InFlight in_flight,
                       std::chrono::milliseconds timeout) {
  if (!table) return {Code::kInvalidArgument, "publish needs a routing table"};
  auto command = std::make_shared<TableCommand>();
  command->table = std::move(table);
  command->in_flight = in_flight;
  // A day stands for "as long as it takes" and keeps the sum in range.
  command->deadline =
      Clock::now() + std::min<std::chrono::milliseconds>(timeout, std::chrono::hours(24));
  return impl_->execute(std::move(command));
}

Status Engine::revoke(const std::string& module, std::shared_ptr<const RoutingTable> table) {
  if (!table) return {Code::kInvalidArgument, "revoke needs a routing table"};
  if (table->module_index(module) >= 0)
    return {Code::kInvalidArgument,
            fmt::format("the table for the revocation of \"{}\" still holds it", module),
            "build the table without the module"};
  auto command = std::make_shared<TableCommand>();
  command->table = std::move(table);
  command->revoked = module;
  return impl_->execute(std::move(command));
}

PublishedEpoch Engine::current() const {
  const std::lock_guard lock(impl_->mutex);
  const RoutingTable& table = *impl_->table;
  return {table.epoch(), table.digest(), table.top_k(), table.notes()};
}

std::shared_ptr<const RoutingTable> Engine::table() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->table;
}

std::vector<EpochInfo> Engine::epochs() const {
  const std::lock_guard lock(impl_->mutex);
  return impl_->epoch_snapshot;
}

EngineStats Engine::stats() const {
  EngineStats stats;
  std::vector<float> steps;
  {
    const std::lock_guard lock(impl_->mutex);
    stats = impl_->snapshot;
    stats.router = impl_->router_snapshot;
    stats.waiting = static_cast<int64_t>(impl_->waiting.size());
    stats.rejected = impl_->rejected;
    steps = impl_->step_ms;
  }
  stats.step_ms_p50 = percentile(steps, 0.50);
  stats.step_ms_p99 = percentile(std::move(steps), 0.99);
  return stats;
}

bool Engine::drain(std::chrono::milliseconds timeout) {
  std::unique_lock lock(impl_->mutex);
  impl_->draining = true;
  return impl_->drained.wait_for(lock, timeout, [this] { return impl_->outstanding.empty(); });
}

}  // namespace chimera
