// Sampling: logits of one position to the next token.
//
// Order of the steps, that of Hugging Face generate(): logit bias, repetition penalty, temperature,
// top-k, top-p, min-p, draw. vLLM differs in one place: it applies min-p before top-k and top-p.
// Frequency and presence penalty come after the repetition penalty, as in vLLM; their formula is
// that of OpenAI's API reference ("Frequency and presence penalties"):
//
//   logit[j] -= count[j] * frequency_penalty + (count[j] > 0 ? presence_penalty : 0)
//
// where count[j] says how often j was generated; unlike the repetition penalty they leave the
// prompt out. At temperature 0 the best token after all these is taken.
//
// Tokens that a constraint rules out leave between the penalties and the temperature.
//
// Ties are broken by the lower id everywhere, so top-k keeps exactly k tokens.
//
// The draw uses a counter-based generator keyed by (seed, step): the tokens of a request depend
// on its own logits and seed only, never on the batch, and survive a restart of the sequence.
//
// Thread safety: a Sampler belongs to one sequence; distinct ones may run concurrently.
#pragma once

#include <cstdint>
#include <map>
#include <span>
#include <vector>

#include "base/status.h"
#include "daemon/engine/sequence/request.h"

namespace chimera {

/// Index of the largest logit among those of `mask` (ties: the lowest index); -1 when all of them
/// are -infinity. REQUIRES: the logits hold no NaN, and `mask` is as long.
int32_t argmax(std::span<const float> logits, const constraint::TokenMask& mask);

/// Index of the largest logit (ties: the lowest index); -1 when `logits` is empty or holds a NaN,
/// +infinity, or nothing but -infinity.
int32_t argmax(std::span<const float> logits);

/// log softmax(logits)[token], in double and in one fixed order, so equal logits give equal bits.
/// REQUIRES: 0 <= token < logits.size().
double token_logprob(std::span<const float> logits, int32_t token);

/// The `count` most likely tokens (ties: the lowest ids) with their token_logprob, best first.
std::vector<TokenChoice> top_logprobs(std::span<const float> logits, size_t count);

/// Uniform in [0, 1): the `step`-th number of the stream of `seed`.
double counter_uniform(uint64_t seed, uint64_t step);

/// Ok when every field is inside its range; otherwise invalid_argument naming the field.
Status check_sampling(const SamplingParams& params);

class Sampler {
 public:
  explicit Sampler(const SamplingParams& params) : params_(params) {}

  /// Tells the repetition penalty of ids in the history.
  void observe(std::span<const int32_t> ids);
  /// Tells all penalties of a token that was generated.
  void observe_generated(int32_t id);
  /// The token of step `step` (0 = first generated), or -1 when the logits are not finite. With a
  /// mask (null: none), out of those in it; the steps behind the penalties see no others.
  int32_t sample(std::span<const float> logits, uint64_t step,
                 const constraint::TokenMask* mask = nullptr);

 private:
  struct Candidate {
    double score;  // penalised logit / temperature; later the unnormalised probability
    int32_t id;
  };
  static bool before(const Candidate& a, const Candidate& b) {
    return a.score != b.score ? a.score > b.score : a.id < b.id;
  }
  /// Whether the best logit may not be the best token.
  bool adjusts() const;
  void load(std::span<const float> logits, const constraint::TokenMask* mask);
  void adjust();
  void keep_top_k();
  void to_weights(double max_score);
  void keep_top_p();
  void keep_min_p();
  int32_t draw(double uniform) const;

  SamplingParams params_;
  std::vector<bool> seen_;                // by id; empty while the penalty is off
  std::vector<int32_t> history_;          // the distinct ids seen
  std::map<int32_t, int64_t> generated_;  // how often, in order of ids; empty without penalties
  std::vector<Candidate> candidates_;
};

}  // namespace chimera
