#include "daemon/engine/sequence/sampler.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

#include <fmt/format.h>

namespace chimera {

namespace {

/// Whether all of N values are at most `most`; false when one is NaN.
template <size_t N>
bool none_above(const float* values, float most) {
  uint32_t above = 0;
  for (size_t i = 0; i < N; ++i) above |= static_cast<uint32_t>(!(values[i] <= most));
  return above == 0;
}

}  // namespace

int32_t argmax(std::span<const float> logits) {
  // Mostly nothing of a block exceeds the best so far, which one loop without branches tells.
  constexpr size_t kBlock = 64;
  float best = -std::numeric_limits<float>::infinity();
  int32_t id = -1;
  for (size_t begin = 0; begin < logits.size(); begin += kBlock) {
    const size_t end = std::min(begin + kBlock, logits.size());
    if (end - begin == kBlock && none_above<kBlock>(logits.data() + begin, best)) continue;
    for (size_t i = begin; i < end; ++i) {
      if (logits[i] <= best) continue;  // false for NaN, which so reaches the check below
      if (!(logits[i] < std::numeric_limits<float>::infinity())) return -1;
      best = logits[i];
      id = static_cast<int32_t>(i);
    }
  }
  return id;
}

int32_t argmax(std::span<const float> logits, const constraint::TokenMask& mask) {
  float best = -std::numeric_limits<float>::infinity();
  int32_t id = -1;
  const std::vector<uint64_t>& words = mask.words();
  for (size_t w = 0; w < words.size(); ++w) {
    for (uint64_t left = words[w]; left != 0; left &= left - 1) {
      const size_t i = w * 64 + static_cast<size_t>(std::countr_zero(left));
      if (logits[i] <= best) continue;
      best = logits[i];
      id = static_cast<int32_t>(i);
    }
  }
  return id;
}

namespace {

/// log softmax of one row of logits: token_logprob for any of them.
class LogSoftmax {
 public:
  explicit LogSoftmax(std::span<const float> logits)
      : logits_(logits), max_(*std::max_element(logits.begin(), logits.end())) {
    double sum = 0.0;
    for (const float l : logits) sum += std::exp(static_cast<double>(l) - max_);
    log_sum_ = std::log(sum);
  }
  double operator()(int32_t token) const {
    return static_cast<double>(logits_[static_cast<size_t>(token)]) - max_ - log_sum_;
  }

 private:
  const std::span<const float> logits_;
  const double max_;
  double log_sum_ = 0.0;
};

}  // namespace

double token_logprob(std::span<const float> logits, int32_t token) {
  return LogSoftmax(logits)(token);
}

std::vector<TokenChoice> top_logprobs(std::span<const float> logits, size_t count) {
  std::vector<TokenChoice> best;  // logits first
  count = std::min(count, logits.size());
  if (count == 0) return best;
  best.reserve(count + 1);
  const auto better = [](const TokenChoice& a, const TokenChoice& b) {
    return a.logprob > b.logprob;
  };
  for (size_t i = 0; i < logits.size(); ++i) {
    if (best.size() == count && !(logits[i] > best.back().logprob)) continue;
    const TokenChoice choice{static_cast<int32_t>(i), logits[i]};
    best.insert(std::upper_bound(best.begin(), best.end(), choice, better), choice);
    if (best.size() > count) best.pop_back();
  }
  const LogSoftmax logprob(logits);
  for (TokenChoice& choice : best) choice.logprob = static_cast<float>(logprob(choice.token));
  return best;
}

namespace {

/// Finaliser of SplitMix64 (Steele, Lea, Flood 2014).
uint64_t split_mix(uint64_t x) {
  x += 0x9E3779B97F4A7C15ull;
  x = (x ^ (x >> 30)) * 0xBF58476D1CE4E5B9ull;
  x = (x ^ (x >> 27)) * 0x94D049BB133111EBull;
  return x ^ (x >> 31);
}

Status out_of_range(const char* field, double found, const char* expected) {
  return {Code::kInvalidArgument, fmt::format("{} is {} (expected {})", field, found, expected),
          fmt::format("give {} inside its range, or leave it out", field)};
}

}  // namespace

double counter_uniform(uint64_t seed, uint64_t step) {
  // Mixing the seed first keeps the streams of neighbouring seeds apart.
  return static_cast<double>(split_mix(split_mix(seed) + step) >> 11) * 0x1.0p-53;
}

Status check_sampling(const SamplingParams& p) {
  // Written so that a NaN fails too.
  if (!(p.temperature >= 0.0 && std::isfinite(p.temperature)))
    return out_of_range("temperature", p.temperature, "a number >= 0");
  if (!(p.top_p > 0.0 && p.top_p <= 1.0))
    return out_of_range("top_p", p.top_p, "a number in (0, 1]");
  if (!(p.min_p >= 0.0 && p.min_p <= 1.0))
    return out_of_range("min_p", p.min_p, "a number in [0, 1]");
  if (p.top_k < 0)
    return out_of_range("top_k", static_cast<double>(p.top_k), "0 (off) or a positive number");
  if (!(p.repetition_penalty > 0.0 && std::isfinite(p.repetition_penalty)))
    return out_of_range("repetition_penalty", p.repetition_penalty, "a number > 0");
  if (!std::isfinite(p.frequency_penalty))
    return out_of_range("frequency_penalty", p.frequency_penalty, "a finite number");
  if (!std::isfinite(p.presence_penalty))
    return out_of_range("presence_penalty", p.presence_penalty, "a finite number");
  for (const auto& [id, bias] : p.logit_bias) {
    if (!std::isfinite(bias)) return out_of_range("logit_bias", bias, "finite numbers");
  }
  return {};
}

void Sampler::observe(std::span<const int32_t> ids) {
  if (params_.repetition_penalty == 1.0) return;
  for (const int32_t id : ids) {
    const auto i = static_cast<size_t>(id);
    if (i >= seen_.size()) seen_.resize(i + 1, false);
    if (seen_[i]) continue;
    seen_[i] = true;
    history_.push_back(id);
  }
}

void Sampler::observe_generated(int32_t id) {
  observe({&id, 1});
  if (params_.frequency_penalty != 0.0 || params_.presence_penalty != 0.0) ++generated_[id];
}

bool Sampler::adjusts() const {
  return !history_.empty() || !generated_.empty() || !params_.logit_bias.empty();
}

int32_t Sampler::sample(std::span<const float> logits, uint64_t step,
                        const constraint::TokenMask* mask) {
  const int32_t best = argmax(logits);
  if (best < 0) return -1;
  const bool greedy = params_.temperature == 0.0;
  if (greedy && !adjusts()) return mask == nullptr ? best : argmax(logits, *mask);
  load(logits, mask);
  const auto top = std::min_element(candidates_.begin(), candidates_.end(), before);
  // Without a mask there is the best logit.
  if (top == candidates_.end() || top->score == -std::numeric_limits<double>::infinity()) return -1;
  if (greedy) return top->id;
  const double max_score = top->score;
  keep_top_k();
  to_weights(max_score);
  keep_top_p();
  keep_min_p();
  return draw(counter_uniform(params_.seed, step));
}

/// All tokens in id order, biases, penalties and the temperature applied.
void Sampler::load(std::span<const float> logits, const constraint::TokenMask* mask) {
  candidates_.resize(logits.size());
  for (size_t i = 0; i < logits.size(); ++i)
    candidates_[i] = {static_cast<double>(logits[i]), static_cast<int32_t>(i)};
  adjust();
  if (mask != nullptr) {
    std::erase_if(candidates_, [mask](const Candidate& c) { return !mask->contains(c.id); });
  }
  if (params_.temperature == 0.0 || params_.temperature == 1.0) return;
  for (Candidate& c : candidates_) c.score /= params_.temperature;
}

/// REQUIRES: candidates_ in id order.
void Sampler::adjust() {
  const auto score_of = [this](int32_t id) {
    const auto i = static_cast<size_t>(id);
    return i < candidates_.size() ? &candidates_[i].score : nullptr;
  };
  for (const auto& [id, bias] : params_.logit_bias) {
    if (double* score = score_of(id)) *score += bias;
  }
  for (const int32_t id : history_) {
    double* score = score_of(id);
    if (score == nullptr) continue;
    *score =
        *score < 0.0 ? *score * params_.repetition_penalty : *score / params_.repetition_penalty;
  }
  for (const auto& [id, count] : generated_) {
    if (double* score = score_of(id)) {
      *score -= static_cast<double>(count) * params_.frequency_penalty + params_.presence_penalty;
    }
  }
}

void Sampler::keep_top_k() {
  if (params_.top_k == 0 || static_cast<size_t>(params_.top_k) >= candidates_.size()) return;
  const auto end = candidates_.begin() + params_.top_k;
  std::nth_element(candidates_.begin(), end - 1, candidates_.end(), before);
  candidates_.erase(end, candidates_.end());
  std::sort(candidates_.begin(), candidates_.end(), before);
}

void Sampler::to_weights(double max_score) {
  for (Candidate& c : candidates_) c.score = std::exp(c.score - max_score);
}

/// Keeps the shortest run of most probable tokens whose mass reaches top_p, at least one.
void Sampler::keep_top_p() {
  if (params_.top_p >= 1.0) return;
  double total = 0.0;
  for (const Candidate& c : candidates_) total += c.score;
  const double wanted = params_.top_p * total;
  // Sorts only as much of a large vocabulary as the mass needs: runs that grow fourfold.
  const size_t n = candidates_.size();
  double mass = 0.0;
  size_t kept = 0;
  for (size_t sorted = 0; sorted < n && mass < wanted;) {
    const size_t next = std::min(n, std::max<size_t>(64, 4 * sorted));
    const auto at = [&](size_t i) { return candidates_.begin() + static_cast<ptrdiff_t>(i); };
    if (next < n) std::nth_element(at(sorted), at(next - 1), candidates_.end(), before);
    std::sort(at(sorted), at(next), before);
    sorted = next;
    while (kept < sorted && mass < wanted) mass += candidates_[kept++].score;
  }
  candidates_.resize(std::max<size_t>(kept, 1));
}

void Sampler::keep_min_p() {
  if (params_.min_p <= 0.0) return;
  // The most probable token has weight 1, whatever was cut before.
  std::erase_if(candidates_, [this](const Candidate& c) { return c.score < params_.min_p; });
}

int32_t Sampler::draw(double uniform) const {
  double total = 0.0;
  for (const Candidate& c : candidates_) total += c.score;
  double left = uniform * total;
  int32_t last = candidates_.front().id;
  for (const Candidate& c : candidates_) {
    if (c.score <= 0.0) continue;
    last = c.id;
    left -= c.score;
    if (left < 0.0) break;
  }
  return last;
}

}  // namespace chimera
