#include "daemon/engine/sequence/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>
#include <map>
#include <numeric>
#include <random>

#include <gmock/gmock.h>
#include <gtest/gtest.h>

namespace chimera {
namespace {

constexpr float kInf = std::numeric_limits<float>::infinity();
constexpr float kNan = std::numeric_limits<float>::quiet_NaN();

std::vector<float> random_logits(uint32_t seed, size_t n) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0.0f, 2.0f);
  std::vector<float> logits(n);
  for (float& l : logits) l = normal(rng);
  return logits;
}

/// The distribution that the parameters ask for, the obvious way: full sorts, one step after the
/// other, probabilities renormalised after each as Hugging Face's warpers do.
std::vector<double> reference(const std::vector<float>& logits, const SamplingParams& p,
                              const std::vector<int32_t>& history) {
  const size_t n = logits.size();
  std::vector<double> score(logits.begin(), logits.end());
  for (size_t i = 0; i < n; ++i) {
    const bool seen = std::count(history.begin(), history.end(), static_cast<int32_t>(i)) > 0;
    if (seen)
      score[i] = score[i] < 0 ? score[i] * p.repetition_penalty : score[i] / p.repetition_penalty;
    score[i] /= p.temperature;
  }
  std::vector<bool> kept(n, true);
  const auto probabilities = [&] {
    std::vector<double> out(n, 0.0);
    double total = 0.0;
    for (size_t i = 0; i < n; ++i) total += out[i] = kept[i] ? std::exp(score[i]) : 0.0;
    for (double& v : out) v /= total;
    return out;
  };
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  std::stable_sort(order.begin(), order.end(),
                   [&](size_t a, size_t b) { return score[a] > score[b]; });
  if (p.top_k > 0)
    for (size_t r = static_cast<size_t>(p.top_k); r < n; ++r) kept[order[r]] = false;
  std::vector<double> prob = probabilities();
  double before = 0.0;
  for (size_t i : order) {
    if (before >= p.top_p) kept[i] = false;
    before += prob[i];
  }
  prob = probabilities();
  const double floor = p.min_p * *std::max_element(prob.begin(), prob.end());
  for (size_t i = 0; i < n; ++i) kept[i] = kept[i] && prob[i] >= floor;
  return probabilities();
}

/// Draws many tokens and compares their counts with `expected` (Pearson's chi-square).
void expect_distribution(const std::vector<float>& logits, const SamplingParams& p,
                         const std::vector<int32_t>& history) {
  const std::vector<double> expected = reference(logits, p, history);
  constexpr int kDraws = 20000;
  Sampler sampler(p);
  sampler.observe(history);
  std::vector<int> count(logits.size(), 0);
  for (uint64_t step = 0; step < kDraws; ++step) {
    const int32_t id = sampler.sample(logits, step);
    ASSERT_GE(id, 0);
    ASSERT_GT(expected[static_cast<size_t>(id)], 0.0) << "token " << id << " was to be cut off";
    ++count[static_cast<size_t>(id)];
  }
  double chi2 = 0.0;
  int cells = 0;
  for (size_t i = 0; i < expected.size(); ++i) {
    const double want = expected[i] * kDraws;
    if (want < 5.0) continue;  // the test needs well filled cells
    chi2 += (count[i] - want) * (count[i] - want) / want;
    ++cells;
  }
  const double freedom = std::max(1, cells - 1);
  EXPECT_LT(chi2, freedom + 5.0 * std::sqrt(2.0 * freedom) + 5.0) << cells << " cells";
}

TEST(Argmax, LowestIdWinsTies) {
  EXPECT_EQ(argmax(std::vector<float>{1, 3, 2, 3}), 1);
  EXPECT_EQ(argmax(std::vector<float>{-kInf, -5}), 1);
}

TEST(Argmax, FindsTheFirstLargestOfMany) {
  std::mt19937 random(5);
  for (int round = 0; round < 300; ++round) {
    std::vector<float> logits(random() % 400 + 1);
    // Few different values, so that ties are common.
    for (float& v : logits) v = static_cast<float>(random() % 50) - 60.0f;
    const auto most = std::max_element(logits.begin(), logits.end());
    EXPECT_EQ(argmax(logits), most - logits.begin()) << "round " << round;
    logits[random() % logits.size()] = round % 2 == 0 ? kNan : kInf;
    EXPECT_EQ(argmax(logits), -1) << "round " << round;
  }
}

TEST(Argmax, RefusesWhatIsNotFinite) {
  EXPECT_EQ(argmax({}), -1);
  EXPECT_EQ(argmax(std::vector<float>{1, kNan, 2}), -1);
  EXPECT_EQ(argmax(std::vector<float>{kNan, 1}), -1);
  EXPECT_EQ(argmax(std::vector<float>{9, 1, kNan}), -1);
  EXPECT_EQ(argmax(std::vector<float>{1, kInf}), -1);
  EXPECT_EQ(argmax(std::vector<float>{-kInf, -kInf}), -1);
  SamplingParams p;
  EXPECT_EQ(Sampler(p).sample(std::vector<float>{1, kNan}, 0), -1);
}

TEST(TokenLogprob, IsTheLogSoftmax) {
  const std::vector<float> logits = random_logits(1, 50);
  long double total = 0;
  for (const float l : logits) total += std::exp(static_cast<long double>(l));
  for (int32_t i = 0; i < 50; ++i) {
    const long double want =
        std::log(std::exp(static_cast<long double>(logits[static_cast<size_t>(i)])) / total);
    EXPECT_NEAR(token_logprob(logits, i), static_cast<double>(want), 1e-13);
  }
  // Far from zero, where a plain exp overflows.
  EXPECT_NEAR(token_logprob(std::vector<float>{2000, 2000}, 0), -std::log(2.0), 1e-13);
}

TEST(Sampler, TemperatureZeroIsGreedyWhateverTheRestSays) {
  const std::vector<float> logits = random_logits(2, 300);
  SamplingParams p;
  p.temperature = 0;
  p.top_p = 0.5;
  p.min_p = 0.2;
  for (uint64_t seed = 0; seed < 5; ++seed) {
    p.seed = seed;
    EXPECT_EQ(Sampler(p).sample(logits, seed), argmax(logits));
  }
}

TEST(Sampler, PenaltyAlsoSteersGreedy) {
  SamplingParams p;
  p.temperature = 0;
  p.repetition_penalty = 2.0;
  Sampler sampler(p);
  const std::vector<float> logits = {3.0f, 2.0f, -1.0f};
  EXPECT_EQ(sampler.sample(logits, 0), 0);
  sampler.observe(std::vector<int32_t>{0, 0});  // twice in the history counts once: 3 / 2 < 2
  EXPECT_EQ(sampler.sample(logits, 1), 1);
  sampler.observe(std::vector<int32_t>{1});
  EXPECT_EQ(sampler.sample(logits, 2), 0);
  // Negative logits are multiplied, so the penalty always lowers.
  Sampler negative(p);
  negative.observe(std::vector<int32_t>{0});
  EXPECT_EQ(negative.sample(std::vector<float>{-1.0f, -1.5f}, 0), 1);
}

/// The best token of a sampler at temperature 0 that has been told of `generated`.
int32_t greedy(SamplingParams p, const std::vector<float>& logits,
               const std::vector<int32_t>& generated, const std::vector<int32_t>& prompt = {}) {
  p.temperature = 0;
  Sampler sampler(p);
  sampler.observe(prompt);
  for (const int32_t id : generated) sampler.observe_generated(id);
  return sampler.sample(logits, generated.size());
}

TEST(Sampler, FrequencyAndPresencePenaltyFollowTheFormula) {
  SamplingParams frequency;
  frequency.frequency_penalty = 0.5;
  EXPECT_EQ(greedy(frequency, {3.0f, 2.25f}, {0}), 0);     // 2.5 against 2.25
  EXPECT_EQ(greedy(frequency, {3.0f, 2.25f}, {0, 0}), 1);  // 2.0
  SamplingParams presence;
  presence.presence_penalty = 0.5;
  EXPECT_EQ(greedy(presence, {3.0f, 2.75f}, {0}), 1);  // 2.5, and no less
  EXPECT_EQ(greedy(presence, {3.0f, 2.25f}, {0, 0, 0}), 0);
  SamplingParams both = frequency;
  both.presence_penalty = 0.25;
  EXPECT_EQ(greedy(both, {3.0f, 2.3f}, {0}), 1);  // 2.25
  EXPECT_EQ(greedy(both, {3.0f, 2.2f}, {0}), 0);
  SamplingParams reward;
  reward.frequency_penalty = -1.0;
  EXPECT_EQ(greedy(reward, {3.0f, 2.5f}, {1}), 1);
}

TEST(Sampler, FrequencyAndPresencePenaltyLeaveThePromptOut) {
  SamplingParams p;
  p.frequency_penalty = 2.0;
  p.presence_penalty = 2.0;
  EXPECT_EQ(greedy(p, {3.0f, 2.0f}, {}, /*prompt=*/{0, 0, 0}), 0);
  EXPECT_EQ(greedy(p, {3.0f, 2.0f}, {0}), 1);
}

TEST(Sampler, LogitBiasForcesAndBansTokens) {
  const std::vector<float> logits = {3.0f, 2.0f, 1.0f};
  SamplingParams p;
  p.logit_bias = {{0, -100.0}};
  EXPECT_EQ(greedy(p, logits, {}), 1);
  p.logit_bias = {{2, 100.0}};
  EXPECT_EQ(greedy(p, logits, {}), 2);
  p.logit_bias = {{0, -1.5}, {7, 100.0}};  // an id past the logits counts for nothing
  EXPECT_EQ(greedy(p, logits, {}), 1);
  // Drawn as from logits to which the bias had been added.
  const std::vector<float> other = {3.0f, 4.5f, 1.0f};
  SamplingParams plain, biased;
  biased.logit_bias = {{1, 2.5}};
  for (uint64_t step = 0; step < 200; ++step) {
    EXPECT_EQ(Sampler(biased).sample(logits, step), Sampler(plain).sample(other, step));
  }
}

TEST(Sampler, WithoutEffectIsBitForBitWithout) {
  const std::vector<float> logits = random_logits(11, 500);
  SamplingParams plain, zero;
  zero.logit_bias = {{3, 0.0}, {77, 0.0}};
  Sampler a(plain), b(zero);
  for (uint64_t step = 0; step < 200; ++step) {
    const int32_t id = a.sample(logits, step);
    EXPECT_EQ(b.sample(logits, step), id);
    a.observe_generated(id);
    b.observe_generated(id);
  }
}

TEST(TopLogprobs, AreTheMostLikelyInOrder) {
  for (const size_t count : {size_t{1}, size_t{5}, size_t{20}, size_t{300}}) {
    std::vector<float> logits = random_logits(static_cast<uint32_t>(count), 200);
    for (size_t i = 0; i < logits.size(); i += 7) logits[i] = 1.0f;  // ties
    std::vector<int32_t> order(logits.size());
    std::iota(order.begin(), order.end(), 0);
    std::stable_sort(order.begin(), order.end(), [&](int32_t a, int32_t b) {
      return logits[static_cast<size_t>(a)] > logits[static_cast<size_t>(b)];
    });
    const std::vector<TokenChoice> top = top_logprobs(logits, count);
    ASSERT_EQ(top.size(), std::min(count, logits.size()));
    for (size_t i = 0; i < top.size(); ++i) {
      EXPECT_EQ(top[i].token, order[i]);
      EXPECT_EQ(top[i].logprob, static_cast<float>(token_logprob(logits, order[i])));
    }
  }
  EXPECT_TRUE(top_logprobs(random_logits(1, 5), 0).empty());
}

TEST(Sampler, TopKKeepsExactlyKByLowestId) {
  SamplingParams p;
  p.top_k = 2;
  Sampler sampler(p);
  std::map<int32_t, int> seen;
  for (uint64_t step = 0; step < 200; ++step)
    ++seen[sampler.sample(std::vector<float>{1, 1, 1, 1}, step)];
  EXPECT_EQ(seen.size(), 2u);
  EXPECT_TRUE(seen.count(0) && seen.count(1));
}

TEST(Sampler, DrawsFromTheDistributionAskedFor) {
  struct Case {
    double temperature, top_p, min_p, penalty;
    int64_t top_k;
    size_t vocab;
  };
  const Case cases[] = {
      {1.0, 1.0, 0.0, 1.0, 0, 12},   {0.7, 1.0, 0.0, 1.0, 0, 40},    {1.5, 1.0, 0.0, 1.0, 5, 40},
      {1.0, 0.8, 0.0, 1.0, 0, 40},   {1.0, 1.0, 0.1, 1.0, 0, 40},    {0.9, 0.9, 0.05, 1.3, 8, 40},
      {2.0, 0.95, 0.0, 1.0, 0, 900}, {1.0, 0.6, 0.0, 0.8, 100, 900}, {0.3, 0.01, 0.0, 1.0, 0, 40},
  };
  uint32_t number = 0;
  for (const Case& c : cases) {
    SCOPED_TRACE(number);
    SamplingParams p;
    p.temperature = c.temperature;
    p.top_p = c.top_p;
    p.min_p = c.min_p;
    p.repetition_penalty = c.penalty;
    p.top_k = c.top_k;
    p.seed = 1000 + number;
    expect_distribution(random_logits(100 + number, c.vocab), p, {1, 3, 7, 3});
    ++number;
  }
}

TEST(Sampler, DependsOnSeedAndStepAlone) {
  const std::vector<float> logits = random_logits(5, 100);
  SamplingParams p;
  p.seed = 42;
  std::vector<int32_t> forward, backward, other;
  Sampler a(p), b(p);
  for (uint64_t step = 0; step < 50; ++step) forward.push_back(a.sample(logits, step));
  for (uint64_t step = 50; step-- > 0;) backward.push_back(b.sample(logits, step));
  std::reverse(backward.begin(), backward.end());
  EXPECT_EQ(forward, backward);
  p.seed = 43;
  Sampler c(p);
  for (uint64_t step = 0; step < 50; ++step) other.push_back(c.sample(logits, step));
  EXPECT_NE(forward, other);
}

TEST(CounterUniform, IsUniformOverSteps) {
  std::vector<int> bins(64, 0);
  for (uint64_t step = 0; step < 64000; ++step) {
    const double u = counter_uniform(7, step);
    ASSERT_GE(u, 0.0);
    ASSERT_LT(u, 1.0);
    ++bins[static_cast<size_t>(u * 64)];
  }
  double chi2 = 0;
  for (const int n : bins) chi2 += (n - 1000.0) * (n - 1000.0) / 1000.0;
  EXPECT_LT(chi2, 63 + 5 * std::sqrt(126.0));
}

TEST(CheckSampling, NamesTheFieldOutOfRange) {
  const auto message = [](auto change) {
    SamplingParams p;
    change(p);
    const Status status = check_sampling(p);
    return status.ok() ? std::string("ok") : status.message();
  };
  using testing::StartsWith;
  EXPECT_EQ(message([](SamplingParams&) {}), "ok");
  EXPECT_THAT(message([](SamplingParams& p) { p.temperature = -1; }),
              StartsWith("temperature is -1"));
  EXPECT_THAT(message([](SamplingParams& p) { p.temperature = std::nan(""); }),
              StartsWith("temperature"));
  EXPECT_THAT(message([](SamplingParams& p) { p.top_p = 0; }), StartsWith("top_p is 0"));
  EXPECT_THAT(message([](SamplingParams& p) { p.top_p = 1.01; }), StartsWith("top_p"));
  EXPECT_THAT(message([](SamplingParams& p) { p.min_p = 2; }), StartsWith("min_p is 2"));
  EXPECT_THAT(message([](SamplingParams& p) { p.top_k = -3; }), StartsWith("top_k is -3"));
  EXPECT_THAT(message([](SamplingParams& p) { p.repetition_penalty = 0; }),
              StartsWith("repetition_penalty"));
}

// Sampling under a mask is sampling from a row that has only the allowed logits.
TEST(Sampler, AMaskLeavesTheOthersOut) {
  const std::vector<float> logits = random_logits(5, 200);
  constraint::TokenMask mask(200), all(200);
  std::vector<float> allowed;
  std::vector<int32_t> ids;
  for (int32_t id = 0; id < 200; ++id) {
    all.set(id);
    if (id % 3 != 1) continue;
    mask.set(id);
    ids.push_back(id);
    allowed.push_back(logits[static_cast<size_t>(id)]);
  }
  const SamplingParams cases[] = {{.temperature = 0.0},
                                  {.temperature = 1.5},
                                  {.temperature = 0.8, .top_k = 9},
                                  {.temperature = 1.0, .top_p = 0.7},
                                  {.temperature = 2.0, .min_p = 0.1}};
  for (const SamplingParams& params : cases) {
    Sampler sampler(params);
    for (uint64_t step = 0; step < 50; ++step) {
      const int32_t expected = ids[static_cast<size_t>(sampler.sample(allowed, step))];
      EXPECT_EQ(sampler.sample(logits, step, &mask), expected);
      EXPECT_EQ(sampler.sample(logits, step, &all), sampler.sample(logits, step));
    }
  }
}

TEST(Sampler, AMaskWithoutALikelyTokenGivesNone) {
  const std::vector<float> logits = {1.0f, -kInf, 2.0f};
  constraint::TokenMask mask(3);
  mask.set(1);
  for (const double temperature : {0.0, 1.0})
    EXPECT_EQ(Sampler(SamplingParams{.temperature = temperature}).sample(logits, 0, &mask), -1);
}

}  // namespace
}  // namespace chimera
