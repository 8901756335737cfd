#include "daemon/engine/live_sequences.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "daemon/engine/sequence/module_selection.h"

namespace chimera {

namespace {

// How often room in memory is looked for that experts did not find.
constexpr std::chrono::milliseconds kExpertsRetry{100};

/// Whether a request that ended so says something about what it ran on.
bool is_fault(Code code) {
  return code == Code::kDataCorrupt || code == Code::kInternal || code == Code::kUnavailable ||
         code == Code::kDeadlineExceeded;
}

/// For who needs experts that could not be read. Where they lie, and what is wrong there, is for
/// the log and not for clients.
Status experts_not_there() {
  return {Code::kUnavailable,
          "experts of the backbone that this request needs are not in memory, and could not be "
          "read again",
          "send it again later, or without modules.exclude"};
}

/// Likewise for an average of bundles.
Status average_not_there(const ActiveSet& active, const Status& failure) {
  std::string names;
  active.mask.for_each([&](size_t i) {
    const Module& module = *active.layout->modules()[i];
    if (module.bundle != nullptr) names += (names.empty() ? "" : ", ") + module.name();
  });
  if (failure.code() == Code::kDataCorrupt) {
    return {Code::kDataCorrupt,
            fmt::format("bundles {}: their average, which this request needs, has numbers that the "
                        "backbone's dtype does not hold (expected finite ones that it holds)",
                        names),
            "send it with one of them alone in modules.only; the daemon's log names the tensor"};
  }
  const bool no_room = failure.code() == Code::kResourceExhausted;
  return {
      no_room ? Code::kResourceExhausted : Code::kUnavailable,
      fmt::format("bundles {}: their average, which this request needs, is not in memory, and "
                  "{} (expected {})",
                  names, no_room ? "found no room for it" : "could not be made",
                  no_room ? fmt::format("some, and {} of requests in use at most", Averages::kMost)
                          : "the checkpoint as it was"),
      "send it again later, or with one of them alone in modules.only"};
}

void count_end(CanarySide& side, const Sequence& sequence, const DoneEvent& event) {
  ++side.requests;
  if (event.completion_tokens > 1) {
    side.tokens += static_cast<uint64_t>(event.completion_tokens - 1);
    side.decode_ms += event.decode_ms;
  }
  if (event.finish_reason == FinishReason::kScored && sequence.request.text_bytes > 0) {
    side.scored_bytes += static_cast<uint64_t>(sequence.request.text_bytes);
    side.nats += event.nats;
  }
}

}  // namespace

LiveSequences::LiveSequences(Options options, std::unique_ptr<KvCache> cache, EngineStats* counters,
                             Reaper* reaper)
    : options_(std::move(options)),
      counters_(counters),
      reaper_(reaper),
      cache_(std::move(cache)),
      scheduler_(cache_.get(),
                 StepPace(options_.step_target_ms, options_.prefill_chunk, options_.row_positions,
                          options_.lone_chunk),
                 options_.prefill_chunk, options_.prefix_cache, options_.ngram_speculation,
                 options_.lone_chunk) {}

bool LiveSequences::has_room_for(const PendingRequest& pending) const {
  if (static_cast<int64_t>(live_.size()) >= options_.max_sequences) return false;
  // One more for the first token that is drawn.
  const auto tokens = static_cast<int64_t>(pending.request.tokens.size()) + 1;
  return live_.empty() || scheduler_.fits(std::min(options_.max_context, tokens), live_);
}

void LiveSequences::admit(PendingRequest pending,
                          const std::shared_ptr<const RoutingTable>& table) {
  ResolvedModules modules = resolve_modules(pending.request.modules, *table);
  if (modules.exhausted) {
    // Its modules were taken out while it waited; the backbone alone is not what it asked for.
    return refuse(std::move(pending), FinishReason::kRevoked, *table);
  }
  Result<RouteViewPtr> view = make_route_view(table, modules.mask, std::move(modules.bias));
  live_.push_back(std::make_unique<Sequence>(std::move(pending), cache_.get(), options_.tokenizer,
                                             options_.max_context));
  Sequence& s = *live_.back();
  ++counters_->admitted;
  counters_->latencies.queue.observe(s.admitted - s.request.arrived);
  counters_->prompt_tokens += static_cast<uint64_t>(s.prompt_tokens);
  if (!view.ok()) return fail(s, view.status());
  // Who came first gets memory first, even where what this one uses is still there.
  const bool others_wait =
      options_.adapters != nullptr && !(*view)->held.empty() && options_.adapters->contended();
  s.set_view(others_wait ? without_adapters(**view) : std::move(*view));
  let_run(s);
}

void LiveSequences::let_run(Sequence& s) {
  s.paused = s.waits_for_adapters();
  if (s.paused) return;
  scheduler_.place(s);
  if (s.epoch > 0) return;  // it is told what was found at first
  s.cached = s.computed;
  counters_->cached_tokens += static_cast<uint64_t>(s.cached);
}

void LiveSequences::fetch_adapters() {
  for (const auto& sequence : live_) {
    if (!sequence->ended && sequence->waits_for_adapters()) fetch_adapters(*sequence);
  }
}

void LiveSequences::fetch_adapters(Sequence& s) {
  std::vector<AdapterStore::SourcePtr> sources;
  for (const Module* module : s.view->active->adapters) {
    if (module->adapter_source != nullptr) sources.push_back(module->adapter_source);
  }
  if (options_.adapters == nullptr)
    return fail(s, {Code::kInternal, "adapters that are not in memory, and nothing to read them"});
  if (s.adapter_wait == nullptr)
    s.adapter_wait = options_.adapters->ask(std::move(sources), [bell = options_.bell] {
      if (bell != nullptr) bell->ring();
    });
  if (!s.adapter_wait->over()) return;
  Result<std::vector<AdapterStore::AdapterPtr>> fetched = s.adapter_wait->answer();
  if (!fetched.ok()) return fail(s, fetched.status());
  std::vector<AdapterStore::AdapterPtr> adapters;
  size_t next = 0;
  for (const Module* module : s.view->active->adapters)
    adapters.push_back(module->adapter_source != nullptr ? (*fetched)[next++] : module->adapter);
  move(s, with_adapters(*s.view, std::move(adapters)));
  let_run(s);
}

bool LiveSequences::all_wait_for_adapters() const {
  return std::all_of(live_.begin(), live_.end(), [](const auto& sequence) {
    return sequence->ended || sequence->waits_for_adapters();
  });
}

void LiveSequences::refuse(PendingRequest pending, FinishReason reason, const RoutingTable& table) {
  count(reason);
  DoneEvent event = finish_waiting(pending, reason, table);
  endings_.push_back({pending.id, std::move(pending.ticket), Status(), std::move(event)});
}

void LiveSequences::refuse(PendingRequest pending, Status status) {
  ++counters_->failed;
  endings_.push_back({pending.id, std::move(pending.ticket), std::move(status), {}});
}

void LiveSequences::end(Sequence& sequence, FinishReason reason) {
  if (sequence.ended) return;
  count(reason);
  time(sequence, reason);
  sequence.ended = true;
  DoneEvent event = sequence.finish(reason);
  if (CanarySide* side = side_of(sequence)) count_end(*side, sequence, event);
  endings_.push_back({sequence.id, std::move(sequence.ticket), Status(), std::move(event),
                      static_cast<int64_t>(sequence.tokens.size())});
}

void LiveSequences::fail(Sequence& sequence, Status status, Fault fault) {
  if (sequence.ended) return;
  ++counters_->failed;
  sequence.ended = true;
  const bool counts = fault == Fault::kOfTable && is_fault(status.code());
  if (CanarySide* side = counts ? side_of(sequence) : nullptr) {
    ++side->requests;
    ++side->failed;
  }
  endings_.push_back({sequence.id,
                      std::move(sequence.ticket),
                      std::move(status),
                      {},
                      static_cast<int64_t>(sequence.tokens.size())});
}

/// What was broken off says nothing of how long answers take.
void LiveSequences::time(const Sequence& sequence, FinishReason reason) {
  const Clock::time_point now = Clock::now();
  switch (reason) {
    case FinishReason::kScored:
    case FinishReason::kEmbedded:
      counters_->latencies.prefill.observe(now - sequence.admitted);
      [[fallthrough]];
    case FinishReason::kStop:
    case FinishReason::kLength:
      counters_->latencies.request.observe(now - sequence.request.arrived);
      return;
    case FinishReason::kCancelled:
    case FinishReason::kRevoked:
    case FinishReason::kDeadline:
      return;
  }
}

CanarySide* LiveSequences::side_of(const Sequence& sequence) const {
  CanaryCounts& counts = counters_->canary;
  if (counts.epoch == 0 || sequence.view == nullptr) return nullptr;
  const uint64_t epoch = sequence.view->table->epoch();
  if (epoch == counts.epoch) return &counts.canary;
  return epoch == counts.basis ? &counts.current : nullptr;
}

void LiveSequences::count(FinishReason reason) {
  switch (reason) {
    case FinishReason::kCancelled:
      ++counters_->cancelled;
      return;
    case FinishReason::kStop:
    case FinishReason::kLength:
    case FinishReason::kScored:
    case FinishReason::kEmbedded:
    case FinishReason::kRevoked:
    case FinishReason::kDeadline:
      ++counters_->finished;
      return;
  }
}

void LiveSequences::move(Sequence& sequence, RouteViewPtr view) {
  reaper_->take(sequence.set_view(std::move(view)));
  if (!sequence.waits_for_adapters() || sequence.paused) return;
  // Another object of the same module, whose adapter is not in memory: computed again, to the same
  // bits, once it is.
  sequence.restart();
  sequence.paused = true;
}

void LiveSequences::restart(Sequence& sequence, const Result<RouteViewPtr>& view) {
  if (!view.ok()) {
    if (view.status().code() == Code::kNotFound) return end(sequence, FinishReason::kRevoked);
    return fail(sequence, view.status());
  }
  sequence.restart();
  move(sequence, *view);
  ++counters_->restarted;
  if (!sequence.paused) scheduler_.place(sequence);
}

void LiveSequences::entitle(Sequence& sequence, ModuleRightsPtr rights) {
  sequence.request.modules.rights = std::move(rights);
  sequence.composition.clear();  // told anew, without what is hidden now
  if (!sequence.view) return;
  const auto table = sequence.view->table;
  const Result<RouteViewPtr> view = view_on(table, sequence.request.modules);
  const bool same = view.ok() && (*view)->scope == sequence.view->scope;
  return same ? move(sequence, *view) : restart(sequence, view);
}

std::vector<EpochInfo> LiveSequences::epochs(const RoutingTable& current,
                                             const RoutingTable* canary) const {
  std::vector<EpochInfo> epochs{{current.epoch(), current.digest(), 0, true}};
  if (canary != nullptr) epochs.push_back({canary->epoch(), canary->digest(), 0, false, true});
  for (const auto& sequence : live_) {
    if (!sequence->view) continue;
    const RoutingTable& used = *sequence->view->table;
    auto at = std::find_if(epochs.begin(), epochs.end(),
                           [&](const EpochInfo& info) { return info.epoch == used.epoch(); });
    if (at == epochs.end()) at = epochs.insert(at, {used.epoch(), used.digest(), 0, false});
    ++at->sequences;
  }
  std::sort(epochs.begin(), epochs.end(),
            [](const EpochInfo& x, const EpochInfo& y) { return x.epoch < y.epoch; });
  return epochs;
}

bool LiveSequences::look_at_experts() {
  bool all = true;
  const Clock::time_point now = Clock::now();
  // Either nobody tries again now or all do, and not the first one every time.
  const bool retry = now - experts_retried_ >= kExpertsRetry;
  for (const auto& sequence : live_) {
    if (sequence->ended || !sequence->view) continue;
    const ActiveSet& active = *sequence->view->active;
    sequence->awaits_experts = !active.ready();
    if (!sequence->awaits_experts) {
      sequence->experts_wanted.reset();
      if (!sequence->waits_for_adapters()) all = false;
      continue;
    }
    if (!sequence->experts_wanted) sequence->experts_wanted = now;
    const std::optional<Status> failure = active.failure();
    if (!failure) continue;
    if (failure->code() == Code::kResourceExhausted &&
        now - *sequence->experts_wanted < options_.experts_room) {
      if (retry) {
        experts_retried_ = now;
        active.begin(AverageFor::kRequest);
      }
      continue;
    }
    fail_without(*sequence, active, *failure);
  }
  return all;
}

void LiveSequences::fail_without(Sequence& sequence, const ActiveSet& active,
                                 const Status& failure) {
  // What the checkpoint lacks, and memory, say nothing of the modules that some of them try.
  if (active.lease != nullptr && active.lease->failure())
    return fail(sequence, experts_not_there(), Fault::kElsewhere);
  const Code code = failure.code();
  const bool elsewhere = code == Code::kResourceExhausted || code == Code::kCancelled;
  fail(sequence, average_not_there(active, failure),
       elsewhere ? Fault::kElsewhere : Fault::kOfTable);
}

bool LiveSequences::any_awaits_experts() const {
  return std::any_of(live_.begin(), live_.end(),
                     [](const auto& sequence) { return sequence->awaits_experts; });
}

void LiveSequences::sweep() {
  std::erase_if(live_, [this](std::unique_ptr<Sequence>& sequence) {
    if (!sequence->ended) return false;
    sequence->adapter_wait.reset();
    reaper_->take(std::exchange(sequence->view, nullptr));
    return true;
  });
}

bool LiveSequences::trim() {
  (void)cache_->trim();
  const int64_t kept =
      cache_->total_blocks() - cache_->available_blocks() + cache_->cached_blocks();
  return cache_->resident_blocks() > kept;
}

void LiveSequences::count_occupancy() {
  counters_->live = static_cast<int64_t>(live_.size());
  counters_->kv_blocks_total = cache_->total_blocks();
  counters_->kv_blocks_free = cache_->available_blocks();
  const uint64_t block = cache_->block_bytes();
  const auto bytes = [block](int64_t blocks) { return static_cast<uint64_t>(blocks) * block; };
  counters_->kv_bytes_budget = cache_->reserved_bytes();
  counters_->kv_bytes_resident = bytes(cache_->resident_blocks());
  counters_->kv_bytes_cached = bytes(cache_->cached_blocks());
  counters_->kv_bytes_used = bytes(cache_->total_blocks() - cache_->available_blocks());
}

std::vector<RequestEnd> LiveSequences::send_endings() {
  std::vector<RequestEnd> ends;
  for (Ending& ending : std::exchange(endings_, {})) {
    ends.push_back({ending.id, ending.tokens});
    if (ending.error.ok()) {
      ending.ticket.done(std::move(ending.done));
    } else {
      ending.ticket.fail(std::move(ending.error));
    }
  }
  return ends;
}

}  // namespace chimera
