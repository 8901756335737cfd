// The engine thread and the parts it runs, each with its own rules in its own header:
//
//   RequestQueue    requests until they are admitted, cancels, who is owed an answer
//   EpochBoard      the current routing table, publishes and revocations
//   PinLimit        for how long sequences keep what was replaced
//   LiveSequences   sequences in progress, and how requests end
//   Step            one forward pass over them
//   GateSamples     what gates saw of it
//   Statistics      what all of this counted
//
// Thread safety: the parts' own; run() and what it calls belong to the engine thread.
#pragma once

#include <atomic>
#include <memory>
#include <set>
#include <string>
#include <thread>

#include "base/threads/background.h"
#include "daemon/engine/engine.h"
#include "daemon/engine/epoch_board.h"
#include "daemon/engine/live_sequences.h"
#include "daemon/engine/pin_limit.h"
#include "daemon/engine/reaper.h"
#include "daemon/engine/scheduling/doorbell.h"
#include "daemon/engine/scheduling/request_queue.h"
#include "daemon/engine/statistics.h"
#include "daemon/engine/step.h"

namespace chimera {

struct Engine::Impl {
  Impl(std::shared_ptr<const Backbone> backbone, std::shared_ptr<const Tokenizer> tokenizer,
       std::shared_ptr<const RoutingTable> table, const EngineOptions& options,
       std::unique_ptr<KvCache> cache);
  ~Impl();

  // Engine thread.
  void run();
  bool idle() const;
  void sleep();
  void trim_when_due();
  std::set<std::string> modules_in_use() const;
  void refuse_displaced();
  void apply_cancels();
  void apply_rights();
  void expire_deadlines();
  void expire_pins();
  void end_matching(FinishReason reason, const auto& match);
  void carry_out_changes();
  void admit();
  void show(Statistics::Routing routing);
  void flush_endings();
  void end_everything();

  const std::shared_ptr<const Backbone> backbone;
  const bool has_tokenizer;
  const EngineOptions options;

  // In the order of who uses whom.
  Foreground foreground;
  Doorbell bell;
  Reaper reaper;
  Statistics statistics;
  RequestQueue queue;
  EpochBoard board;
  PinLimit pin_limit;
  LiveSequences live;
  GateSamples samples;
  Step step;

  // Engine thread only.
  Clock::time_point next_trim;
  bool to_trim = false;  // there may be memory to give back

  std::atomic<bool> stopping{false};
  std::thread thread;  // last: everything above exists when it starts
};

}  // namespace chimera
