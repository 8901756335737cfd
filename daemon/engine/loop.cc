// The engine thread: what it does between two steps, and in which order.
#include <malloc.h>

#include <utility>

#include "daemon/engine/impl.h"

namespace chimera {
namespace {

// How late the deadline of a request may be noticed while no step runs.
constexpr std::chrono::milliseconds kDeadlineLook{20};
// The same of experts that have been read again while nothing else runs: reading takes longer.
constexpr std::chrono::milliseconds kExpertsLook{2};

}  // namespace

Engine::Impl::Impl(std::shared_ptr<const Backbone> backbone_in,
                   std::shared_ptr<const Tokenizer> tokenizer,
                   std::shared_ptr<const RoutingTable> table, const EngineOptions& options_in,
                   std::unique_ptr<KvCache> cache)
    : backbone(std::move(backbone_in)),
      has_tokenizer(tokenizer != nullptr),
      options(options_in),
      queue(options.max_queue, &bell, options.max_output_bytes),
      board(std::move(table), options.max_live_epochs, &bell, &reaper),
      pin_limit(options.pin_limit, options.pinned),
      live({.tokenizer = std::move(tokenizer),
            .max_sequences = options.max_sequences,
            .max_context = options.max_context,
            .prefill_chunk = options.prefill_chunk,
            .lone_chunk = options.lone_chunk,
            .step_target_ms = options.step_target_ms,
            .row_positions = StepPace::row_positions(backbone->config()),
            .prefix_cache = options.prefix_cache,
            .ngram_speculation = options.ngram_speculation,
            .experts_room = options.experts_room,
            .adapters = options.adapters,
            .bell = &bell},
           std::move(cache), &statistics.counters(), &reaper),
      samples(options.gate_sample_bytes, backbone->config().hidden_size),
      step(backbone, options.threads, options.mask_work, &live, &statistics, &samples) {
  show(Statistics::Routing::kNow);
  thread = std::thread([this] { run(); });
}

Engine::Impl::~Impl() {
  stopping = true;
  bell.ring();
  thread.join();
}

void Engine::Impl::run() {
  while (!stopping) {
    trim_when_due();
    foreground.set_busy(!idle());
    if (idle()) {
      sleep();
      continue;
    }
    refuse_displaced();
    apply_cancels();
    apply_rights();
    expire_deadlines();
    expire_pins();
    flush_endings();
    carry_out_changes();
    admit();
    live.fetch_adapters();
    flush_endings();
    if (live.all_wait_for_adapters()) {
      // What waits is held back by answers of its own client that nobody has read yet, or for
      // adapters. Whoever frees or fetches some rings; deadlines do not.
      if (!queue.idle() || !live.empty()) bell.wait_until(Clock::now() + kDeadlineLook);
      continue;
    }
    const bool all_wait = live.look_at_experts();
    flush_endings();
    // Whoever reads experts does not ring.
    if (all_wait || (!step.run() && live.any_awaits_experts())) {
      bell.wait_until(Clock::now() + kExpertsLook);
      continue;
    }
    to_trim = true;
    if (live.has_endings()) {
      flush_endings();
    } else {
      show(Statistics::Routing::kWhenDue);
    }
  }
  end_everything();
}

/// Until somebody rings, or there is memory to give back.
void Engine::Impl::sleep() {
  if (to_trim)
    bell.wait_until(next_trim);
  else
    bell.wait();
}

void Engine::Impl::trim_when_due() {
  const Clock::time_point now = Clock::now();
  if (now < next_trim) return;
  next_trim = now + options.trim_interval;
  to_trim = live.trim();
  // What requests and answers took of the heap. Only when nobody waits: it walks all of it.
  if (idle()) (void)malloc_trim(0);
  show(Statistics::Routing::kWhenDue);
}

bool Engine::Impl::idle() const { return live.empty() && queue.idle() && board.idle(); }

/// Ends what waits or runs and is meant by `match`, which takes (id, request).
void Engine::Impl::end_matching(FinishReason reason, const auto& match) {
  for (PendingRequest& pending :
       queue.take_if([&](const PendingRequest& p) { return match(p.id, p.request); })) {
    live.refuse(std::move(pending), reason, *board.current());
  }
  for (const auto& sequence : live.all()) {
    if (match(sequence->id, sequence->request)) live.end(*sequence, reason);
  }
}

void Engine::Impl::refuse_displaced() {
  for (auto& [pending, why] : queue.take_displaced()) {
    live.refuse(std::move(pending), std::move(why));
  }
}

void Engine::Impl::apply_cancels() {
  const auto ids = queue.take_cancels();
  if (ids.empty()) return;
  end_matching(FinishReason::kCancelled,
               [&](RequestId id, const EngineRequest&) { return ids.contains(id); });
}

void Engine::Impl::apply_rights() {
  const auto changed = queue.take_rights();
  if (changed.empty()) return;
  for (const auto& sequence : live.all()) {
    const auto found = changed.find(sequence->id);
    if (found == changed.end() || sequence->ended) continue;
    board.forget_views(sequence->id);
    live.entitle(*sequence, found->second);
  }
  step.let_go();
}

void Engine::Impl::expire_deadlines() {
  const Clock::time_point now = Clock::now();
  end_matching(FinishReason::kDeadline, [now](RequestId, const EngineRequest& request) {
    return request.deadline && *request.deadline <= now;
  });
}

/// Before changes are carried out: one may wait for the epoch of these.
void Engine::Impl::expire_pins() {
  if (pin_limit.enforce(live, board.current(), board.canary().get())) step.let_go();
}

void Engine::Impl::carry_out_changes() {
  if (!board.carry_out(live, queue)) return;
  step.let_go();
  flush_endings();
  statistics.keep_modules(modules_in_use());
  const uint64_t canary = board.canary() == nullptr ? 0 : board.canary()->epoch();
  CanaryCounts& counts = statistics.counters().canary;
  if (counts.epoch != canary) counts = {canary, board.current()->epoch(), {}, {}};
  // Once a change is acknowledged, what was counted before it is visible.
  show(Statistics::Routing::kNow);
  board.acknowledge();
}

/// Names of the modules of all tables in use.
std::set<std::string> Engine::Impl::modules_in_use() const {
  std::set<const RoutingLayout*> layouts{board.current()->layout().get()};
  if (board.canary() != nullptr) layouts.insert(board.canary()->layout().get());
  for (const auto& sequence : live.all()) layouts.insert(sequence->view->table->layout().get());
  std::set<std::string> names;
  for (const RoutingLayout* layout : layouts) {
    for (const auto& module : layout->modules()) names.insert(module->name());
  }
  return names;
}

void Engine::Impl::admit() {
  const auto has_room = [this](const PendingRequest& next) { return live.has_room_for(next); };
  while (auto next = queue.take_next(has_room)) {
    const std::shared_ptr<const RoutingTable>& table = board.table_for(next->request.lot);
    live.admit(std::move(*next), table);
  }
}

void Engine::Impl::show(Statistics::Routing routing) {
  live.count_occupancy();
  statistics.show(routing);
  board.show(live.epochs(*board.current(), board.canary().get()));
}

void Engine::Impl::flush_endings() {
  if (!live.has_endings()) return;
  live.sweep();
  // Statistics first: a client that saw its answer finds itself counted.
  show(Statistics::Routing::kNow);
  queue.ended(live.send_endings());
}

void Engine::Impl::end_everything() {
  const Status stopped(Code::kCancelled, "the daemon stopped before the request ended",
                       "send it again once the daemon is back");
  for (const auto& sequence : live.all()) live.fail(*sequence, stopped);
  for (PendingRequest& pending : queue.close()) live.refuse(std::move(pending), stopped);
  flush_endings();
  board.close();
}

}  // namespace chimera
