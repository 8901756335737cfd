// Sequence: one request in progress, and how its tokens become events.
//
// A generating sequence always holds one token more than its KV cache: `tokens` ends with the
// token that was sampled last and not yet run. So prefill, decode and the recomputation after a
// restart are one thing, "run the tokens from `computed` on", and a restart loses and repeats
// nothing.
//
// Thread safety: engine thread only.
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "backbone/forward/kv_cache.h"
#include "daemon/adapters/adapter_store.h"
#include "daemon/engine/sequence/drafter.h"
#include "daemon/engine/sequence/request.h"
#include "daemon/engine/sequence/sampler.h"
#include "daemon/engine/sequence/stop_matcher.h"
#include "daemon/engine/sequence/ticket.h"
#include "router/moe.h"
#include "text/tokenizer/tokenizer.h"

namespace chimera {

using RouteViewPtr = std::shared_ptr<const RouteView>;
using Clock = std::chrono::steady_clock;

/// A request as it waits in the queue.
struct PendingRequest {
  RequestId id = 0;
  EngineRequest request;
  Ticket ticket;
};

/// The text of a growing token list: whole characters, stop strings cut off.
class TextStream {
 public:
  TextStream(std::shared_ptr<const Tokenizer> tokenizer, bool skip_special,
             std::vector<std::string> stops);
  struct Piece {
    std::string text;
    bool stopped = false;  // by a stop string
  };
  Piece push(int32_t id);
  /// What was held back, once no token will follow.
  Piece finish();
  /// All text handed out so far.
  const std::string& text() const { return text_; }

 private:
  Piece match(const std::string& decoded);

  std::optional<StreamDecoder> decoder_;  // none without a tokenizer: all text is ""
  StopMatcher stops_;
  std::string text_;
};

/// A token drawn for a sequence, with what its request wants to know of the place.
struct Drawn {
  int32_t token = -1;  // -1: the logits were not finite, or `failure`
  float logprob = 0.0f;
  std::vector<TokenChoice> top = {};
  Status failure = {};  // of the constraint
};

class Sequence {
 public:
  /// `max_context`: tokens of prompt and answer together; max_tokens is clipped to it.
  Sequence(PendingRequest pending, KvCache* cache, std::shared_ptr<const Tokenizer> tokenizer,
           int64_t max_context);

  bool scoring() const { return request.kind == EngineRequest::Kind::kScore; }
  bool embedding() const { return request.kind == EngineRequest::Kind::kEmbed; }
  /// Else it reads: every row of its text counts for the answer, and no token follows.
  bool generating() const { return request.kind == EngineRequest::Kind::kGenerate; }
  /// Tokens not yet in the KV cache.
  int64_t uncomputed() const { return static_cast<int64_t>(tokens.size()) - computed; }
  /// Whether the next token could be drawn: what it may be is known.
  bool mask_known() const { return !guide || guide->ready(); }
  /// Of the uncomputed tokens those that may run: the last waits for that.
  int64_t runnable() const {
    if (awaits_experts) return 0;
    return uncomputed() - (generating() && !mask_known() ? 1 : 0);
  }
  int64_t generated() const { return static_cast<int64_t>(tokens.size()) - prompt_tokens; }
  /// One token per step, outside the prefill budget.
  bool decoding() const { return generated() > 0 && uncomputed() == 1; }
  /// KV positions it can ever need.
  int64_t max_positions() const { return prompt_tokens + max_new; }

  /// Whether adapters that it uses have to be read before it can run.
  bool waits_for_adapters() const { return view != nullptr && !view->has_adapters; }

  /// Puts the sequence on `next` and remembers the modules it permits; returns the view it left.
  RouteViewPtr set_view(RouteViewPtr next);
  /// Forgets the KV cache. What reads starts over; generated tokens stay.
  void restart();

  /// A pass over the next `n` tokens on the current view succeeded.
  void ran(int64_t n);
  /// Draws the next token by its row of logits. Concurrently with those of other sequences.
  Drawn draw(std::span<const float> row);
  /// Appends a sampled token, sends its event and says whether it ends the sequence (kStop or
  /// kLength), or nullopt to go on.
  std::optional<FinishReason> accept(const Drawn& drawn, bool is_eos);
  /// Everything of the answer.
  DoneEvent finish(FinishReason reason);

  const RequestId id;
  EngineRequest request;
  Ticket ticket;
  std::vector<int32_t> tokens;  // prompt, then generated
  const int64_t prompt_tokens;
  const int64_t max_new;     // generated tokens at most; 0 when reading
  int64_t computed = 0;      // positions in the KV cache
  int64_t cached = 0;        // of them found in the prefix cache, not computed
  uint64_t dropped = 0;      // choices done without (RoutedSegment::dropped)
  bool kv_degraded = false;  // so were some behind the KV cache: it is not what the scope says
  bool paused = false;  // has no blocks: gave them up for an older sequence and waits for room,
                        // or waits for its adapters
  /// Experts that its view needs are being read again, or the average of its bundles is being made
  /// (LiveSequences::look_at_experts).
  bool awaits_experts = false;
  std::optional<Clock::time_point> experts_wanted;  // since when; of that view
  KvSequence kv;
  std::vector<std::string> block_keys;  // chain keys of the full blocks so far

  RouteViewPtr view;
  std::unique_ptr<AdapterStore::Wait> adapter_wait;  // of that view
  /// Since then other modules are current than its own (PinLimit).
  std::optional<Clock::time_point> left_behind;
  int pin_restarts = 0;          // how often it was moved
  uint64_t epoch = 0;            // of the last forward pass
  std::string composition;       // its digest
  std::vector<EpochUse> epochs;  // of all passes that count
  SequenceUsage usage;
  SequenceUsage last_usage;  // of the row that the next token is drawn from, if want_shares
  Drafter drafter;
  std::vector<int32_t> draft;  // guesses that the step under way runs
  int64_t held = 0;            // of them, so far: what was drawn
  Sampler sampler;
  std::optional<constraint::Guide> guide;              // of a constraint: where the answer stands
  std::vector<float> logprobs;                         // per generated or scored token
  std::vector<std::vector<TokenChoice>> top_logprobs;  // per generated token, if asked for
  std::shared_ptr<std::vector<float>> logits;
  std::shared_ptr<RoutingTrace> routing;
  double nats = 0.0;
  Pool pool;  // of an embedding

  Clock::time_point admitted;
  std::optional<Clock::time_point> first_result;
  Clock::time_point last_result;  // of the token before, once there is one
  bool ended = false;

 private:
  void start_reading();
  void fill_provenance(DoneEvent& event) const;
  void fill_score(DoneEvent& event);
  void fill_generation(DoneEvent& event);

  TextStream text_;
  std::map<std::string, ModuleShare> modules_;  // ever permitted; shares are filled in at the end
};

/// The answer to a request that ended before it was admitted.
DoneEvent finish_waiting(const PendingRequest& pending, FinishReason reason,
                         const RoutingTable& table);

}  // namespace chimera
