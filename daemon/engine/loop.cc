// The engine thread: queue, admission and the ends of requests.
#include <algorithm>
#include <iterator>
#include <utility>

#include <fmt/format.h>

#include "daemon/engine/impl.h"
#include "daemon/engine/module_selection.h"

namespace chimera {
namespace {

/// The router's counts are maps; copying them every step would cost more than it tells. They are
/// also copied whenever a request ends.
constexpr std::chrono::milliseconds kRouterStatsInterval{100};

}  // namespace

Engine::Impl::Impl(std::shared_ptr<const Backbone> backbone_in,
                   std::shared_ptr<const Tokenizer> tokenizer_in,
                   std::shared_ptr<const RoutingTable> table_in, EngineOptions options_in,
                   std::unique_ptr<KvCache> cache_in)
    : backbone(std::move(backbone_in)),
      tokenizer(std::move(tokenizer_in)),
      options(options_in),
      kernels(best_kernels()),
      table(std::move(table_in)),
      cache(std::move(cache_in)),
      scheduler(cache.get(), options.prefill_chunk, options.prefix_cache),
      pool(options.threads),
      router(backbone->config(), kernels, pool) {
  step_ms.reserve(kStepWindow);
  refresh_snapshot();
  thread = std::thread([this] { run(); });
}

Engine::Impl::~Impl() {
  {
    const std::lock_guard lock(mutex);
    stopping = true;
  }
  wake.notify_one();
  thread.join();
}

void Engine::Impl::run() {
  while (wait_for_work()) {
    apply_cancels();
    expire_deadlines();
    flush_endings();
    run_table_commands();
    admit();
    flush_endings();
    if (!live.empty()) step();
  }
  end_everything();
}

bool Engine::Impl::wait_for_work() {
  std::unique_lock lock(mutex);
  wake.wait(lock, [this] {
    return stopping || !live.empty() || !waiting.empty() || !cancels.empty() ||
           !arrived_commands.empty() || !commands.empty();
  });
  for (auto& command : arrived_commands) commands.push_back(std::move(command));
  arrived_commands.clear();
  return !stopping;
}

/// Takes the requests for which `match` holds out of the queue and ends them.
template <class Match>
void Engine::Impl::end_waiting_if(const std::string& reason, const Match& match) {
  std::vector<PendingRequest> ended;
  {
    const std::lock_guard lock(mutex);
    const auto keep = std::stable_partition(waiting.begin(), waiting.end(),
                                            [&](const PendingRequest& p) { return !match(p); });
    std::move(keep, waiting.end(), std::back_inserter(ended));
    waiting.erase(keep, waiting.end());
  }
  for (PendingRequest& pending : ended) end_waiting(std::move(pending), reason);
}

void Engine::Impl::apply_cancels() {
  std::unordered_set<RequestId> ids;
  {
    const std::lock_guard lock(mutex);
    if (cancels.empty()) return;
    ids.swap(cancels);
  }
  end_waiting_if("cancelled", [&](const PendingRequest& p) { return ids.count(p.id) > 0; });
  for (const auto& sequence : live) {
    if (ids.count(sequence->id)) end(*sequence, "cancelled");
  }
}

void Engine::Impl::expire_deadlines() {
  const Clock::time_point now = Clock::now();
  const auto late = [&](const EngineRequest& r) { return r.deadline && *r.deadline <= now; };
  end_waiting_if("deadline", [&](const PendingRequest& p) { return late(p.request); });
  for (const auto& sequence : live) {
    if (late(sequence->request)) end(*sequence, "deadline");
  }
}

/// After a revocation: requests that asked for nothing but what is gone need not wait for a slot.
void Engine::Impl::end_exhausted() {
  end_waiting_if("revoked", [this](const PendingRequest& p) {
    return resolve_modules(p.request.modules, *table).exhausted;
  });
}

void Engine::Impl::admit() {
  while (static_cast<int64_t>(live.size()) < options.max_sequences) {
    PendingRequest next;
    {
      const std::lock_guard lock(mutex);
      if (waiting.empty()) return;
      // First come, first served: a request that does not fit yet is not overtaken, or a stream
      // of small ones could starve it. With nobody live it starts in any case.
      const auto prompt = static_cast<int64_t>(waiting.front().request.tokens.size());
      const int64_t most =
          std::min(options.max_context, prompt + waiting.front().request.max_tokens);
      if (!live.empty() && !scheduler.fits(most)) return;
      next = std::move(waiting.front());
      waiting.pop_front();
    }
    start(std::move(next));
  }
}

void Engine::Impl::start(PendingRequest pending) {
  ResolvedModules modules = resolve_modules(pending.request.modules, *table);
  if (modules.exhausted) {
    // Its modules were taken out while it waited; the backbone alone is not what it asked for.
    return end_waiting(std::move(pending), "revoked");
  }
  Result<RouteViewPtr> view = make_route_view(table, modules.mask, std::move(modules.bias));
  auto sequence =
      std::make_unique<Sequence>(std::move(pending), cache.get(), tokenizer, options.max_context);
  ++counters.admitted;
  counters.prompt_tokens += static_cast<uint64_t>(sequence->prompt_tokens);
  live.push_back(std::move(sequence));
  Sequence& s = *live.back();
  if (!view.ok()) return fail(s, view.status());
  s.set_view(std::move(*view));
  if (Status placed = scheduler.place(s); !placed.ok()) return fail(s, std::move(placed));
  s.cached = s.computed;
  counters.cached_tokens += static_cast<uint64_t>(s.cached);
}

void Engine::Impl::end_waiting(PendingRequest pending, const std::string& reason) {
  ++(reason == "cancelled" ? counters.cancelled : counters.finished);
  DoneEvent event = finish_waiting(pending, reason, *table);
  endings.push_back({pending.id, std::move(pending.ticket), Status(), std::move(event)});
}

void Engine::Impl::end(Sequence& sequence, const std::string& reason) {
  if (sequence.ended) return;
  ++(reason == "cancelled" ? counters.cancelled : counters.finished);
  sequence.ended = true;
  DoneEvent event = sequence.finish(reason);
  endings.push_back({sequence.id, std::move(sequence.ticket), Status(), std::move(event)});
}

void Engine::Impl::fail(Sequence& sequence, Status status) {
  if (sequence.ended) return;
  ++counters.failed;
  sequence.ended = true;
  endings.push_back({sequence.id, std::move(sequence.ticket), std::move(status), {}});
}

void Engine::Impl::sweep() {
  std::erase_if(live, [this](std::unique_ptr<Sequence>& sequence) {
    if (!sequence->ended) return false;
    reaper.take(std::exchange(sequence->view, nullptr));
    return true;
  });
}

void Engine::Impl::flush_endings() {
  if (endings.empty()) return;
  sweep();
  // Statistics first: a client that saw its answer finds itself counted.
  refresh_snapshot();
  std::vector<RequestId> ids;
  for (Ending& ending : endings) {
    ids.push_back(ending.id);
    if (ending.error.ok())
      ending.ticket.done(std::move(ending.done));
    else
      ending.ticket.fail(std::move(ending.error));
  }
  endings.clear();
  const std::lock_guard lock(mutex);
  for (const RequestId id : ids) {
    outstanding.erase(id);
    cancels.erase(id);
  }
  if (outstanding.empty()) drained.notify_all();
}

void Engine::Impl::refresh_snapshot() {
  counters.live = static_cast<int64_t>(live.size());
  counters.kv_blocks_total = cache->total_blocks();
  counters.kv_blocks_free = cache->available_blocks();
  std::map<uint64_t, EpochInfo> epochs;
  epochs[table->epoch()] = {table->epoch(), table->digest(), 0, true};
  for (const auto& sequence : live) {
    if (!sequence->view) continue;
    const RoutingTable& used = *sequence->view->table;
    const auto at =
        epochs.try_emplace(used.epoch(), EpochInfo{used.epoch(), used.digest(), 0, false});
    ++at.first->second.sequences;
  }
  const Clock::time_point now = Clock::now();
  const bool copy_router = !endings.empty() || now - router_copied >= kRouterStatsInterval;
  const std::lock_guard lock(mutex);
  snapshot = counters;
  if (copy_router) {
    router_snapshot = router_stats;
    router_copied = now;
  }
  epoch_snapshot.clear();
  for (auto& [epoch, info] : epochs) epoch_snapshot.push_back(std::move(info));
}

void Engine::Impl::end_everything() {
  const Status stopped(Code::kCancelled, "the daemon stopped before the request ended",
                       "send it again once the daemon is back");
  for (const auto& sequence : live) fail(*sequence, stopped);
  {
    std::deque<PendingRequest> rest;
    {
      const std::lock_guard lock(mutex);
      rest.swap(waiting);
      for (auto& command : arrived_commands) commands.push_back(std::move(command));
      arrived_commands.clear();
    }
    for (PendingRequest& pending : rest) {
      ++counters.failed;
      endings.push_back({pending.id, std::move(pending.ticket), stopped, {}});
    }
  }
  flush_endings();
  for (const auto& command : commands)
    command->answer.set_value({Code::kUnavailable, "the engine is stopping"});
  commands.clear();
}

}  // namespace chimera
