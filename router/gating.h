// Gating functions: router logits of one token to the chosen experts and their weights.
//
// All sums are order independent (fixed point), so a masked or absent expert, or another order of
// the same experts, changes no bit of the result (design invariants 1 and 2).
#pragma once

#include <cstdint>
#include <span>

#include "backbone/model_config.h"

namespace chimera {

struct GateChoice {
  int32_t expert = 0;   // index into the logits
  float weight = 0.0f;  // multiplies the expert's output
  float mass = 0.0f;    // weight / sum of the chosen weights: what usage accounting counts
};

/// Softmax over all logits, then the k largest (ties: the lower index), optionally normalised to
/// sum 1. Masked experts carry -infinity. Writes min(k, out.size(), unmasked) choices in descending
/// logit (and so weight) order and returns their number, 0 when every expert is masked. `entropy`,
/// if not null, receives the entropy of the softmax in nats.
/// Returns -1, with nothing written, when a logit is NaN or +infinity: the caller must not use the
/// row (an expert or the backbone produced a non-finite value before).
/// (model-families: softmax-topk; Shazeer et al. 2017, arXiv 1701.06538.)
int select_experts(GateKind kind, std::span<const float> logits, int64_t k, bool norm_topk_prob,
                   std::span<GateChoice> out, float* entropy);

}  // namespace chimera
