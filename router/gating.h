// Gating functions: router logits of one token to the chosen experts and their weights.
//
// All sums are order independent (fixed point, or over values sorted by size), so a masked or
// absent expert, or another order of the same experts, changes no bit of the result (design
// invariants 1 and 2). Ties go to the lower index.
//
//   kSoftmaxTopK     softmax over all, then the k largest; w = p, or p / sum of the chosen p when
//                    norm_topk_prob (Shazeer et al. 2017, arXiv 1701.06538). With groups, each
//                    scores its largest p, and the k are chosen from the topk_group best ones; w is
//                    multiplied by routed_scaling_factor (DeepSeek-V2, arXiv 2405.04434)
//   kTopKSoftmax     the k largest logits, then softmax over these alone (gpt_oss)
//   kTopKSigmoid     the k largest logits, each weighted by its own sigmoid (llama4)
//   kGroupedSigmoid  p = sigmoid(logit), c = p + correction. Every group scores the sum of its two
//                    largest c; the experts of the topk_group best groups stay eligible. The k
//                    largest c are chosen, w = p without the correction, divided by the sum + 1e-20
//                    when norm_topk_prob, times routed_scaling_factor (DeepSeek-V3, arXiv
//                    2412.19437)
//
// Experts that a module adds to a grouped layer stand outside the groups (group -1) and are always
// eligible, unless the module says which group they belong to, as modules that `split` cut do. A
// group with one unmasked expert scores that expert alone, one with none is never kept.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <span>

#include "backbone/families/model_config.h"

namespace chimera {

/// Bound of n_group (DeepSeek-V3 has 8): group scores live on the stack.
inline constexpr int64_t kMaxGateGroups = 256;

/// What a family fixes about its gate.
struct GateRule {
  GateKind kind = GateKind::kSoftmaxTopK;
  bool norm_topk_prob = false;
  int64_t n_group = 1;     // kSoftmaxTopK, kGroupedSigmoid; at most kMaxGateGroups; 1: no groups
  int64_t topk_group = 1;  // groups that stay eligible
  double routed_scaling_factor = 1.0;

  bool operator==(const GateRule&) const = default;
};
GateRule gate_rule(const ModelConfig& config);

/// The scores of one token. All spans are [candidates].
struct GateScores {
  std::span<const float> logits;      // -infinity: masked
  std::span<const float> correction;  // kGroupedSigmoid: finite; empty: 0
  std::span<const int32_t> group;     // with groups: < n_group, -1: none; empty: none
};

struct GateChoice {
  int32_t expert = 0;   // index into the logits
  float weight = 0.0f;  // multiplies the expert's output (or input, as the family says)
  float mass = 0.0f;    // weight / sum of the chosen weights: what usage accounting counts
};

/// What a softmax over candidates sums up. The sums of parts of them add up to those of all,
/// exactly.
struct SoftmaxSums {
  uint64_t exponentials = 0;
  uint64_t surprise = 0;
};
/// Whether the rule takes a softmax over all candidates: then select_experts() needs their sums.
bool sums_candidates(const GateRule& rule);
/// `max`: the largest_logit() of all candidates, finite.
SoftmaxSums softmax_sums(std::span<const float> logits, float max);
/// NaN when one is NaN or +infinity; -infinity when all are masked.
float largest_logit(std::span<const float> logits);

/// Writes at most min(k, out.size()) choices in descending weight and returns their number: fewer
/// when fewer experts are eligible, 0 when every expert is masked. `entropy`, if not null, receives
/// the entropy in nats of the softmax, or of the sigmoids divided by their sum.
/// Returns -1, with nothing written, when a logit is NaN or +infinity: the caller must not use the
/// row (an expert or the backbone produced a non-finite value before).
/// `sums`: softmax_sums() of all candidates, if they are known already.
int select_experts(const GateRule& rule, const GateScores& scores, int64_t k,
                   std::span<GateChoice> out, float* entropy, const SoftmaxSums* sums = nullptr);

}  // namespace chimera
