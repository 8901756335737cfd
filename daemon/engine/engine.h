// The engine: continuous batching of many sequences over the current routing table.
//
// One thread of its own runs steps: every live decode sequence contributes one token, prefill
// chunks fill the rest of the budget (Orca, Yu et al. 2022; chunked prefill, arXiv 2308.16369).
// Commands reach it through a bounded queue; a new routing table takes effect between two steps.
//
// Invariants: (1) a forward pass uses one RouteView per sequence, in every layer; (2) after
// revoke() returned no pass touches the module; (3) every admitted request ends with exactly one
// on_done or on_error; (4) the engine never waits for a loader, a socket or a disk.
//
// Thread safety: all public methods may be called from any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backbone/backbone.h"
#include "base/threads/background.h"
#include "daemon/adapters/adapter_store.h"
#include "daemon/engine/canary.h"
#include "daemon/engine/latency.h"
#include "daemon/engine/sequence/request.h"
#include "router/routing_table.h"
#include "router/shadow/gate_samples.h"
#include "text/tokenizer/tokenizer.h"

namespace chimera {

/// What becomes of sequences that keep replaced modules for longer than they may: they go on on the
/// current table, with their KV recomputed from their tokens, or end as `unavailable`.
enum class PinnedUntil : uint8_t { kRestart, kEnd };

struct EngineOptions {
  int threads = 1;  // compute pool incl. the engine thread
  int64_t max_sequences = 16;
  int64_t max_context = 2048;
  int64_t max_queue = 64;
  int64_t prefill_chunk = 128;
  int64_t lone_chunk = 0;  // of a prompt that is alone; less than prefill_chunk: that
  /// What a step may do to find out what constrained sequences may draw next, in places looked at
  /// (constraint::MaskSearch): some 5 ms of one core. Schemas take a few thousand places where they
  /// take any; hostile ones up to a million, and wait for it.
  uint64_t mask_work = 50'000;
  double step_target_ms = 50.0;  // what a step with prompts may take: the gap that streams see
  int64_t max_live_epochs = 4;
  /// How long sequences keep modules that were replaced or taken out; none: until they end.
  std::optional<std::chrono::milliseconds> pin_limit = std::nullopt;
  PinnedUntil pinned = PinnedUntil::kRestart;
  bool prefix_cache = true;
  /// Sequences that decode run guesses of their next tokens along (Drafter).
  bool ngram_speculation = false;
  /// Of gate inputs of recent traffic (gate_samples.h), bytes; 0: none are kept.
  uint64_t gate_sample_bytes = 0;
  /// Of one account's large answers (logits, routing) that nobody has read yet: further ones wait.
  uint64_t max_output_bytes = uint64_t{64} << 20;
  /// Bytes of keys and values at most; none: a full context for every sequence at once. Sequences
  /// for which there is no room wait, or are computed again later.
  std::optional<uint64_t> kv_bytes = std::nullopt;
  KvFormat kv_format = KvFormat::kF32;  // of keys and values
  /// Reads adapters that are not in memory when sequences use them; outlives the engine. None: all
  /// of them are in memory.
  AdapterStore* adapters = nullptr;
  /// How long experts of the backbone that have left memory may find no room there before the
  /// requests that need them are refused: what has just been withdrawn goes within this.
  std::chrono::milliseconds experts_room{2'000};
  /// How often memory of the cache that nobody needed goes back to the system.
  std::chrono::milliseconds trim_interval{5'000};
};

/// Tokens of one sequence at most. Positions past the trained range have no meaning; the smaller
/// limit rules.
int64_t usable_context(const ModelConfig& config, const EngineOptions& options);

/// Bytes of a cache that holds a full context for every sequence at once, and of one that holds a
/// single context: the most and the least that an engine of these options takes.
uint64_t full_kv_bytes(const ModelConfig& config, const EngineOptions& options);
uint64_t least_kv_bytes(const ModelConfig& config, const EngineOptions& options);

/// What happens to live sequences when a table is published.
enum class InFlight : uint8_t { kPin, kRestart };

struct EpochInfo {
  uint64_t epoch = 0;
  std::string composition;  // digest
  int64_t sequences = 0;    // live on it
  bool current = false;
  bool canary = false;
};

/// The published table as those know it who must not keep it (and its modules) alive.
struct PublishedEpoch {
  uint64_t epoch = 0;
  std::string composition;         // digest
  int64_t top_k = 0;               // RoutingTable::top_k
  std::vector<std::string> notes;  // RoutingTable::notes
};

struct EngineStats {
  int64_t live = 0, waiting = 0;
  uint64_t admitted = 0, finished = 0, failed = 0, cancelled = 0, rejected = 0, restarted = 0;
  uint64_t prompt_tokens = 0, generated_tokens = 0, cached_tokens = 0, steps = 0;
  uint64_t dropped_choices = 0;                      // of rows that went on without a failed expert
  uint64_t drafted_tokens = 0, accepted_tokens = 0;  // guesses that ran, and that held
  uint64_t paused = 0;  // sequences computed again later because older ones needed blocks
  double step_ms_p50 = 0, step_ms_p99 = 0;
  Latencies latencies;  // since the start
  int64_t kv_blocks_total = 0, kv_blocks_free = 0;
  /// The most there may be; what is taken from the system now; of that, what live sequences hold
  /// and what only prefixes find.
  uint64_t kv_bytes_budget = 0, kv_bytes_resident = 0, kv_bytes_used = 0, kv_bytes_cached = 0;
  std::optional<AdapterStats> adapters{};  // where there is a budget for them
  CanaryCounts canary;
  RouterStats router;
};

class Engine {
 public:
  using RequestId = chimera::RequestId;

  static Result<std::unique_ptr<Engine>> create(
      std::shared_ptr<const Backbone> backbone,
      std::shared_ptr<const Tokenizer> tokenizer,  // may be null
      std::shared_ptr<const RoutingTable> table, EngineOptions options);
  ~Engine();  // stops at once; live requests end with `cancelled`

  /// Queues a request. resource_exhausted when there are too many (RequestQueue::add), which may
  /// also become of one that waits; unavailable when draining,
  /// invalid_argument when it cannot ever fit (context, unknown module names, token ids).
  Result<RequestId> submit(EngineRequest request, std::shared_ptr<EventSink> sink);
  /// Ends a request as cancelled; no effect when it already ended.
  void cancel(RequestId id);

  /// Gives a request other rights to modules (null: all) from the next forward pass on: what it
  /// gained or lost makes it recompute its KV from its tokens, as a revocation does.
  void entitle(RequestId id, ModuleRightsPtr rights);

  /// Publishes a table between two steps and returns once it is current. Waits (until `timeout`)
  /// while publishing would leave epochs of more than max_live_epochs sets of modules in use, then
  /// answers failed_precondition naming the oldest epoch and how many sequences hold it. Sequences
  /// whose scope is the same on both tables move along at once: their outputs cannot differ.
  Status publish(std::shared_ptr<const RoutingTable> table, InFlight in_flight,
                 std::chrono::milliseconds timeout);
  /// Publishes `table` (without the module) and moves every sequence that may use `module` off it
  /// (KV recomputed from its tokens), ending those with nothing permitted left as revoked. When it
  /// returns no forward pass touches the module and the engine holds no reference to it.
  Status revoke(const std::string& module, std::shared_ptr<const RoutingTable> table);

  /// Has new sequences begin on `table` when their lot is among the first `fraction`; the others
  /// begin on the current table, and those in progress stay where they are. The next publish() or
  /// revoke() ends the canary: its sequences move to the new table where their scope is the same
  /// there, else publish() lets them finish on theirs and revoke() restarts them. Waits as
  /// publish() does; failed_precondition as well when there is a canary already.
  Status publish_canary(std::shared_ptr<const RoutingTable> table, double fraction,
                        std::chrono::milliseconds timeout);
  /// Takes the canary away and moves its sequences to the current table, as revoke() would. When it
  /// returns no forward pass touches it, and the engine holds no reference to it. Ok when there is
  /// none.
  Status withdraw_canary();
  /// What became of sequences since a canary began.
  CanaryCounts canary() const;

  /// As a client with `rights` may know it; null: all of it.
  PublishedEpoch current(const ModuleRightsPtr& rights = nullptr) const;
  /// Keeps every module of the table in memory while it is held, whatever is revoked meanwhile.
  std::shared_ptr<const RoutingTable> table() const;
  std::vector<EpochInfo> epochs() const;
  EngineStats stats() const;
  /// What gates saw of recent traffic; empty where none is kept.
  GateSamples::Copy gate_samples() const;
  /// Busy while requests run or wait: for loads, to give way to.
  Foreground* foreground();

  /// Refuses new requests; returns once all live ones ended or `timeout` passed (false).
  bool drain(std::chrono::milliseconds timeout);

 private:
  struct Impl;
  explicit Engine(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

/// Scores `tokens` on a table outside the engine (module probes): nats of tokens[1..] and whether
/// all logits were finite. Runs on the calling thread with its own scratch.
struct ProbeResult {
  double nats = 0.0;
  bool finite = true;
  std::string why;            // where finite is false: what the router said of it
  std::string logits_digest;  // equal on repetition
};
Result<ProbeResult> probe_score(const Backbone& backbone, std::shared_ptr<const RoutingTable> table,
                                std::span<const int32_t> tokens);

}  // namespace chimera
