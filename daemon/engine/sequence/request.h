// Requests as the engine takes them, after decoding and range checks, and the events it answers.
//
// Thread safety: values; an EventSink is called on the engine thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/enum_names.h"
#include "base/status.h"
#include "daemon/engine/sequence/account.h"
#include "daemon/engine/sequence/module_rights.h"
#include "daemon/engine/sequence/output_gauge.h"
#include "daemon/engine/sequence/pool.h"
#include "router/moe.h"
#include "text/constraint/constraint.h"

namespace chimera {

/// Given at arrival, unique while the daemon runs.
using RequestId = uint64_t;

struct SamplingParams {
  double temperature = 1.0;  // 0 = greedy
  double top_p = 1.0;
  int64_t top_k = 0;  // 0 = off
  double min_p = 0.0;
  double repetition_penalty = 1.0;
  uint64_t seed = 0;
  double frequency_penalty = 0.0;
  double presence_penalty = 0.0;
  std::vector<std::pair<int32_t, double>> logit_bias{};  // distinct ids
};

/// modules {only, adapters, exclude, bias} of a request, within what its client may use. Experts
/// are used unless they are ruled out, adapters (kind lora) only where `only` or `adapters` names
/// them.
struct ModuleSelection {
  std::optional<std::vector<std::string>> only;
  std::vector<std::string> exclude;
  std::map<std::string, float> bias;
  ModuleRightsPtr rights = nullptr;  // null: all
  std::vector<std::string> adapters = {};
};

struct EngineRequest {
  enum class Kind : uint8_t { kGenerate, kScore, kEmbed } kind = Kind::kGenerate;
  std::vector<int32_t> tokens;
  int64_t text_bytes = 0;  // score: bytes of the scored text (0: tokens given)
  int64_t max_tokens = 256;
  SamplingParams sampling;
  std::vector<std::string> stop;
  bool ignore_eos = false;
  bool skip_special = true;  // text without special tokens; that which ends it is never text
  constraint::ConstraintPtr constraint{};  // null: any text
  bool want_logprobs = false;
  int64_t top_logprobs = 0;          // alternatives for each generated token
  bool want_shares = false;          // of each generated token
  bool want_logits = false;          // score
  bool want_routing = false;         // score
  Pooling pooling = Pooling::kMean;  // embed
  bool normalize = true;             // embed
  ModuleSelection modules;
  std::optional<std::chrono::steady_clock::time_point> deadline;
  std::chrono::steady_clock::time_point arrived;
  AccountPtr account{};
  uint64_t lot = 0;  // on which side of a canary it falls (canary.h)
  // Filled in by the engine.
  int64_t expected_tokens = 0;                 // of prompt and answer at most
  uint64_t output_bytes = 0;                   // of logits and routing
  std::shared_ptr<const OutputHold> output{};  // from its start on, where it has some
};

/// A token that might have stood in a place, and the logarithm of its probability there.
struct TokenChoice {
  int32_t token = 0;
  float logprob = 0.0f;
};

struct TokenEvent {
  int32_t token = 0;
  std::string text;                // whole characters that became certain; often "" (stop strings)
  std::optional<float> logprob;    // of the model's own distribution, before sampling parameters
  uint64_t epoch = 0;              // of the pass that gave it
  std::vector<TokenChoice> top{};  // the most likely ones, if asked for: best first
  /// By module, in want_shares: of the gate's mass for the position that it was drawn at.
  std::map<std::string, double> shares{};
};

struct ModuleShare {
  std::string version, digest;
  double share = 0.0;
  uint64_t rows = 0;  // given to its experts: by token, layer and expert
};

/// A table that an answer was computed on.
struct EpochUse {
  uint64_t epoch = 0;
  std::string composition;  // its digest, as its client may know it
  /// Of the first token that it was used for: generated ones count from 0, those read for a
  /// score or an embedding likewise.
  int64_t from = 0;
};

/// How a request ended that did not fail. A generation by a stop string or token, by max_tokens or
/// the context; a score or an embedding by having all its rows; any of them by its client, because
/// nothing that it may use was left, or because its time was up.
enum class FinishReason : uint8_t {
  kStop,
  kLength,
  kScored,
  kEmbedded,
  kCancelled,
  kRevoked,
  kDeadline
};
inline constexpr auto kFinishReasonNames = enum_names<FinishReason>(
    "stop", "length", "scored", "embedded", "cancelled", "revoked", "deadline");

/// The answer. For `stop` and `length`, `text` is the token events' texts joined; when the end came
/// from elsewhere it may go on with text that was held back for a stop string.
struct DoneEvent {
  FinishReason finish_reason = FinishReason::kCancelled;
  std::string text;             // whole generated text, without stop string
  std::vector<int32_t> tokens;  // generated ids, with the eos or those of the stop string
  int64_t prompt_tokens = 0, completion_tokens = 0, cached_tokens = 0;
  double queue_ms = 0, prefill_ms = 0, decode_ms = 0;
  uint64_t epoch = 0;            // of the last forward pass
  std::string composition;       // its digest
  std::vector<EpochUse> epochs;  // all of them, in order; none when nothing was computed
  // By name: the permitted modules, and those taken out meanwhile that had a share.
  std::map<std::string, ModuleShare> modules;
  double backbone_share = 0.0;
  uint64_t backbone_rows = 0;    // as ModuleShare::rows
  uint64_t dropped_choices = 0;  // of rows that went on without a failed expert (policy `drop`)
  // of each scored token; of each generated one if want_logprobs
  std::vector<float> logprobs;
  std::vector<std::vector<TokenChoice>> top_logprobs;  // TokenEvent::top of each generated one
  // score; only filled when the reason is kScored
  double nats = 0.0;
  int64_t count = 0;  // scored tokens: all but the first
  std::optional<double> bits_per_byte;
  std::shared_ptr<std::vector<float>> logits;  // [n_tokens, vocab]
  std::shared_ptr<RoutingTrace> routing;
  std::shared_ptr<const OutputHold> output;  // to be kept as long as logits and routing
  std::vector<float> embedding{};            // [hidden]; only filled when the reason is kEmbedded
};

/// Where the engine puts a request's events. Called on the engine thread; must not block.
/// Exactly one of on_done / on_error ends a request.
class EventSink {
 public:
  virtual ~EventSink() = default;
  virtual void on_token(TokenEvent event) = 0;
  virtual void on_done(DoneEvent event) = 0;
  virtual void on_error(Status status) = 0;
};

}  // namespace chimera
