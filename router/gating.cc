#include "router/gating.h"

#include <algorithm>
#include <array>
#include <cmath>
#include <limits>

namespace chimera {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();

// Scale of the fixed-point sums. exp(l - max) <= 1, so 2^40 leaves room for 2^24 experts in 64 bits
// and resolves 1e-12, far below the 6e-8 of the float weights.
constexpr double kScale = 1099511627776.0;  // 2^40

// Half up: what is scaled lies in [0, 2^40], and std::llround would be a library call per expert.
constexpr double kHalf = 0.5;
uint64_t to_fixed(double value) { return static_cast<uint64_t>(value * kScale + kHalf); }
double from_fixed(uint64_t value) { return static_cast<double>(value) / kScale; }

double sigmoid(float x) { return 1.0 / (1.0 + std::exp(-static_cast<double>(x))); }

/// The `k` candidates of `n` with the largest key(i), descending, ties by index, leaving out keys
/// of -infinity; `weight` holds the key meanwhile.
template <class Key>
int largest(size_t n, size_t k, std::span<GateChoice> out, const Key& key) {
  size_t count = 0;
  for (size_t i = 0; i < n; ++i) {
    const float value = key(i);
    if (value == kMasked) continue;
    if (count == k && value <= out[k - 1].weight) continue;
    size_t at = count < k ? count++ : k - 1;
    for (; at > 0 && out[at - 1].weight < value; --at) out[at] = out[at - 1];
    out[at] = {static_cast<int32_t>(i), value, 0.0f};
  }
  return static_cast<int>(count);
}

/// Which groups of a token's experts stay eligible.
class GroupFilter {
 public:
  /// `choice_key(i)` is the score of candidate i, -infinity when masked. A group scores its
  /// largest, with kGroupedSigmoid the sum of its two largest.
  template <class Key>
  GroupFilter(const GateRule& rule, std::span<const int32_t> group, const Key& choice_key)
      : groups_(rule.n_group > 1 ? static_cast<size_t>(rule.n_group) : 0) {
    if (groups_ == 0) return;
    std::array<float, kMaxGateGroups> first;
    std::array<float, kMaxGateGroups> second;
    std::fill_n(first.begin(), groups_, kMasked);
    std::fill_n(second.begin(), groups_, kMasked);
    for (size_t i = 0; i < group.size(); ++i) {
      if (group[i] < 0) continue;
      const auto g = static_cast<size_t>(group[i]);
      const float key = choice_key(i);
      second[g] = std::max(second[g], std::min(first[g], key));
      first[g] = std::max(first[g], key);
    }
    if (rule.kind != GateKind::kGroupedSigmoid) std::fill_n(second.begin(), groups_, kMasked);
    for (int64_t n = 0; n < rule.topk_group; ++n) keep_best(first, second);
  }

  bool eligible(std::span<const int32_t> group, size_t i) const {
    if (groups_ == 0 || group.empty() || group[i] < 0) return true;
    return kept_[static_cast<size_t>(group[i])];
  }

 private:
  void keep_best(std::span<const float> first, std::span<const float> second) {
    size_t best = groups_;
    float best_score = kMasked;
    for (size_t g = 0; g < groups_; ++g) {
      if (kept_[g] || first[g] == kMasked) continue;
      const float score = second[g] == kMasked ? first[g] : first[g] + second[g];
      if (best != groups_ && score <= best_score) continue;
      best = g;
      best_score = score;
    }
    if (best != groups_) kept_[best] = true;
  }

  size_t groups_;
  std::array<bool, kMaxGateGroups> kept_{};
};

int select_softmax(const GateRule& rule, const GateScores& scores, float max, size_t k,
                   std::span<GateChoice> out, float* entropy, const SoftmaxSums* sums) {
  const std::span<const float> logits = scores.logits;
  // Softmax over the chosen alone is the softmax over all, normalised over the chosen.
  const bool normalise = rule.norm_topk_prob || rule.kind == GateKind::kTopKSoftmax;
  const SoftmaxSums all = sums != nullptr ? *sums : softmax_sums(logits, max);
  const double sum = from_fixed(all.exponentials);
  // H = -sum p ln p with p = e / sum.
  if (entropy != nullptr) {
    *entropy = static_cast<float>(std::log(sum) + from_fixed(all.surprise) / sum);
  }

  // Logits are in the order of their probabilities.
  const GroupFilter filter(rule, scores.group, [&](size_t i) { return logits[i]; });
  const int count = largest(logits.size(), k, out, [&](size_t i) {
    return filter.eligible(scores.group, i) ? logits[i] : kMasked;
  });
  const std::span<GateChoice> chosen = out.first(static_cast<size_t>(count));
  uint64_t chosen_fixed = 0;
  for (const GateChoice& c : chosen) {
    chosen_fixed += to_fixed(std::exp(static_cast<double>(c.weight) - static_cast<double>(max)));
  }
  const double chosen_sum = from_fixed(chosen_fixed);
  for (GateChoice& c : chosen) {
    const double e = std::exp(static_cast<double>(c.weight) - static_cast<double>(max));
    c.mass = static_cast<float>(e / chosen_sum);
    c.weight = static_cast<float>(e / (normalise ? chosen_sum : sum) * rule.routed_scaling_factor);
  }
  return count;
}

/// Entropy of p_i / sum p with p the sigmoids of the unmasked logits.
float sigmoid_entropy(std::span<const float> logits) {
  uint64_t sum_fixed = 0;
  uint64_t surprise_fixed = 0;  // of -p ln p, each at most 1/e
  for (const float logit : logits) {
    if (std::isinf(logit)) continue;
    const double p = sigmoid(logit);
    sum_fixed += to_fixed(p);
    if (p > 0.0) surprise_fixed += to_fixed(-p * std::log(p));
  }
  if (sum_fixed == 0) return 0.0f;
  const double sum = from_fixed(sum_fixed);
  return static_cast<float>(std::log(sum) + from_fixed(surprise_fixed) / sum);
}

/// Weights of the chosen from their sigmoids: sorted by size, so that their sum does not depend on
/// the order of the candidates, then normalised and scaled.
void weigh_sigmoids(std::span<const float> logits, bool normalise, double scale,
                    std::span<GateChoice> chosen) {
  for (GateChoice& c : chosen) c.weight = logits[static_cast<size_t>(c.expert)];
  // Insertion sort: k is small, and the standard stable sort would allocate.
  for (size_t i = 1; i < chosen.size(); ++i) {
    const GateChoice moved = chosen[i];
    size_t at = i;
    for (; at > 0; --at) {
      const GateChoice& before = chosen[at - 1];
      const bool tie = before.weight == moved.weight;
      if (tie ? before.expert < moved.expert : before.weight > moved.weight) break;
      chosen[at] = before;
    }
    chosen[at] = moved;
  }
  double sum = 0.0;
  for (const GateChoice& c : chosen) sum += sigmoid(c.weight);
  for (GateChoice& c : chosen) {
    const double p = sigmoid(c.weight);
    c.mass = static_cast<float>(sum > 0.0 ? p / sum : 1.0 / static_cast<double>(chosen.size()));
    c.weight = static_cast<float>((normalise ? p / (sum + 1e-20) : p) * scale);
  }
}

int select_grouped(const GateRule& rule, const GateScores& scores, size_t k,
                   std::span<GateChoice> out) {
  const auto choice_key = [&](size_t i) {
    if (scores.logits[i] == kMasked) return kMasked;
    const float p = static_cast<float>(sigmoid(scores.logits[i]));
    return scores.correction.empty() ? p : p + scores.correction[i];
  };
  const GroupFilter filter(rule, scores.group, choice_key);
  const int count = largest(scores.logits.size(), k, out, [&](size_t i) {
    return filter.eligible(scores.group, i) ? choice_key(i) : kMasked;
  });
  weigh_sigmoids(scores.logits, rule.norm_topk_prob, rule.routed_scaling_factor,
                 out.first(static_cast<size_t>(count)));
  return count;
}

}  // namespace

bool sums_candidates(const GateRule& rule) {
  return rule.kind == GateKind::kSoftmaxTopK || rule.kind == GateKind::kTopKSoftmax;
}

SoftmaxSums softmax_sums(std::span<const float> logits, float max) {
  SoftmaxSums sums;  // of e_i = exp(l_i - max), and of e_i * (max - l_i), each at most 1/e
  for (const float logit : logits) {
    if (std::isinf(logit)) continue;
    const double below = static_cast<double>(max) - static_cast<double>(logit);
    const double e = std::exp(-below);
    sums.exponentials += to_fixed(e);
    sums.surprise += to_fixed(e * below);
  }
  return sums;
}

float largest_logit(std::span<const float> logits) {
  float max = kMasked;
  for (const float logit : logits) {
    if (std::isnan(logit) || logit == std::numeric_limits<float>::infinity()) {
      return std::numeric_limits<float>::quiet_NaN();
    }
    max = std::max(max, logit);
  }
  return max;
}

GateRule gate_rule(const ModelConfig& config) {
  return {config.gate_kind, config.norm_topk_prob, config.n_group, config.topk_group,
          static_cast<double>(config.routed_scaling_factor)};
}

int select_experts(const GateRule& rule, const GateScores& scores, int64_t k,
                   std::span<GateChoice> out, float* entropy, const SoftmaxSums* sums) {
  const std::span<const float> logits = scores.logits;
  const size_t limit = std::min(static_cast<size_t>(std::max<int64_t>(k, 0)), out.size());
  const float max = largest_logit(logits);
  if (std::isnan(max)) return -1;
  if (entropy != nullptr) *entropy = 0.0f;
  if (std::isinf(max) || limit == 0) return 0;
  const bool sigmoids =
      rule.kind == GateKind::kTopKSigmoid || rule.kind == GateKind::kGroupedSigmoid;
  if (sigmoids && entropy != nullptr) *entropy = sigmoid_entropy(logits);
  switch (rule.kind) {
    case GateKind::kSoftmaxTopK:
    case GateKind::kTopKSoftmax:
      return select_softmax(rule, scores, max, limit, out, entropy, sums);
    case GateKind::kTopKSigmoid: {
      const int count = largest(logits.size(), limit, out, [&](size_t i) { return logits[i]; });
      weigh_sigmoids(logits, false, 1.0, out.first(static_cast<size_t>(count)));
      return count;
    }
    case GateKind::kGroupedSigmoid:
      return select_grouped(rule, scores, limit, out);
  }
  return -1;
}

}  // namespace chimera
