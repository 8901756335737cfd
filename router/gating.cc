#include "router/gating.h"

#include <algorithm>
#include <cmath>
#include <limits>

namespace chimera {
namespace {

// Scale of the fixed-point sums. exp(l - max) <= 1, so 2^40 leaves room for 2^24 experts in 64 bits
// and resolves 1e-12, far below the 6e-8 of the float weights.
constexpr double kScale = 1099511627776.0;  // 2^40

uint64_t to_fixed(double value) { return static_cast<uint64_t>(value * kScale + 0.5); }
double from_fixed(uint64_t value) { return static_cast<double>(value) / kScale; }

/// Largest logit; NaN when one is NaN or +infinity; -infinity when all are masked.
float checked_max(std::span<const float> logits) {
  float max = -std::numeric_limits<float>::infinity();
  for (const float logit : logits) {
    if (std::isnan(logit) || logit == std::numeric_limits<float>::infinity()) {
      return std::numeric_limits<float>::quiet_NaN();
    }
    max = std::max(max, logit);
  }
  return max;
}

/// The `k` largest unmasked logits, descending, ties by index; `weight` holds the logit meanwhile.
int largest(std::span<const float> logits, size_t k, std::span<GateChoice> out) {
  size_t count = 0;
  for (size_t i = 0; i < logits.size(); ++i) {
    const float logit = logits[i];
    if (logit == -std::numeric_limits<float>::infinity()) continue;
    if (count == k && logit <= out[k - 1].weight) continue;
    size_t at = count < k ? count++ : k - 1;
    for (; at > 0 && out[at - 1].weight < logit; --at) out[at] = out[at - 1];
    out[at] = {static_cast<int32_t>(i), logit, 0.0f};
  }
  return static_cast<int>(count);
}

int select_softmax_topk(std::span<const float> logits, size_t k, bool norm_topk_prob,
                        std::span<GateChoice> out, float* entropy) {
  const float max = checked_max(logits);
  if (std::isnan(max)) return -1;
  if (entropy != nullptr) *entropy = 0.0f;
  if (std::isinf(max) || k == 0) return 0;

  uint64_t sum_fixed = 0;       // of e_i = exp(l_i - max)
  uint64_t surprise_fixed = 0;  // of e_i * (max - l_i), each at most 1/e
  for (const float logit : logits) {
    if (std::isinf(logit)) continue;
    const double below = static_cast<double>(max) - static_cast<double>(logit);
    const double e = std::exp(-below);
    sum_fixed += to_fixed(e);
    surprise_fixed += to_fixed(e * below);
  }
  const double sum = from_fixed(sum_fixed);
  // H = -sum p ln p with p = e / sum.
  if (entropy != nullptr) {
    *entropy = static_cast<float>(std::log(sum) + from_fixed(surprise_fixed) / sum);
  }

  const int count = largest(logits, k, out);
  const std::span<GateChoice> chosen = out.first(static_cast<size_t>(count));
  uint64_t chosen_fixed = 0;
  for (const GateChoice& c : chosen) {
    chosen_fixed += to_fixed(std::exp(static_cast<double>(c.weight) - static_cast<double>(max)));
  }
  const double chosen_sum = from_fixed(chosen_fixed);
  for (GateChoice& c : chosen) {
    const double e = std::exp(static_cast<double>(c.weight) - static_cast<double>(max));
    c.mass = static_cast<float>(e / chosen_sum);
    c.weight = norm_topk_prob ? c.mass : static_cast<float>(e / sum);
  }
  return count;
}

}  // namespace

int select_experts(GateKind kind, std::span<const float> logits, int64_t k, bool norm_topk_prob,
                   std::span<GateChoice> out, float* entropy) {
  const size_t limit = std::min(static_cast<size_t>(std::max<int64_t>(k, 0)), out.size());
  switch (kind) {
    case GateKind::kSoftmaxTopK:
      return select_softmax_topk(logits, limit, norm_topk_prob, out, entropy);
  }
  return -1;
}

}  // namespace chimera
