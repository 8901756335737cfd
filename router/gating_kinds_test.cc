// The gates of gpt_oss, llama4 and deepseek_v3 against slow references, their order independence
// bit for bit, and all of them against the router logits of the golden checkpoints.
#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <filesystem>
#include <limits>
#include <numeric>
#include <random>
#include <vector>

#include "experts/module/base_tensors.h"
#include "experts/module/tensors.h"
#include "router/gating.h"
#include "router/golden_testing.h"
#include "router/routing_table.h"

namespace chimera {
namespace {

constexpr float kMasked = -std::numeric_limits<float>::infinity();
constexpr uint32_t kSeed = 20261122;

/// One token's scores, as a test makes them up.
struct Token {
  std::vector<float> logits;
  std::vector<float> correction;
  std::vector<int32_t> group;

  GateScores scores() const { return {logits, correction, group}; }
};

std::vector<GateChoice> select(const GateRule& rule, const Token& token, int64_t k,
                               float* entropy = nullptr) {
  std::vector<GateChoice> out(static_cast<size_t>(k));
  const int n = select_experts(rule, token.scores(), k, out, entropy);
  out.resize(static_cast<size_t>(std::max(n, 0)));
  return out;
}

double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

/// Experts by descending `key`, -infinity left out.
std::vector<size_t> ranked(const std::vector<double>& key) {
  std::vector<size_t> order;
  for (size_t i = 0; i < key.size(); ++i) {
    if (!std::isinf(key[i])) order.push_back(i);
  }
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) { return key[a] > key[b]; });
  return order;
}

struct Reference {
  std::vector<size_t> experts;  // by descending weight
  std::vector<double> weights;
};

/// model-families sections 6.2, 7.2 and 8, step by step.
Reference reference(const GateRule& rule, const Token& token, size_t k) {
  const std::vector<double> z(token.logits.begin(), token.logits.end());
  std::vector<double> choice = z;
  const bool sums = rule.kind == GateKind::kGroupedSigmoid;
  if (sums || rule.n_group > 1) {
    for (size_t i = 0; sums && i < z.size(); ++i) {
      choice[i] = std::isinf(z[i]) ? z[i] : sigmoid(z[i]) + double{token.correction[i]};
    }
    std::vector<double> score(static_cast<size_t>(rule.n_group), -HUGE_VAL);
    for (size_t g = 0; g < score.size(); ++g) {
      std::vector<double> members;
      for (size_t i = 0; i < z.size(); ++i) {
        if (token.group[i] == static_cast<int32_t>(g) && !std::isinf(choice[i])) {
          members.push_back(choice[i]);
        }
      }
      std::sort(members.rbegin(), members.rend());
      if (!members.empty()) score[g] = members[0] + (sums && members.size() > 1 ? members[1] : 0.0);
    }
    const std::vector<size_t> groups = ranked(score);
    for (size_t i = 0; i < z.size(); ++i) {
      const auto end =
          groups.begin() + std::min<int64_t>(rule.topk_group, static_cast<int64_t>(groups.size()));
      const bool kept = token.group[i] < 0 ||
                        std::find(groups.begin(), end, static_cast<size_t>(token.group[i])) != end;
      if (!kept && rule.n_group > 1) choice[i] = -HUGE_VAL;
    }
  }
  Reference r;
  r.experts = ranked(choice);
  r.experts.resize(std::min(k, r.experts.size()));
  const bool softmax = rule.kind == GateKind::kTopKSoftmax || rule.kind == GateKind::kSoftmaxTopK;
  double all = 0.0;
  for (const double one : z) all += std::exp(one);
  const auto weight = [&](size_t i) { return softmax ? std::exp(z[i]) / all : sigmoid(z[i]); };
  std::stable_sort(r.experts.begin(), r.experts.end(),
                   [&](size_t a, size_t b) { return weight(a) > weight(b); });
  double sum = 0.0;
  for (const size_t i : r.experts) sum += weight(i);
  const bool normalise = rule.kind == GateKind::kTopKSoftmax || rule.norm_topk_prob;
  for (const size_t i : r.experts) {
    r.weights.push_back(normalise ? weight(i) / sum : weight(i));
    r.weights.back() *= rule.routed_scaling_factor;
  }
  return r;
}

/// The kinds with their options; `n` experts.
std::vector<GateRule> rules() {
  return {{GateKind::kTopKSoftmax},
          {GateKind::kTopKSigmoid},
          {GateKind::kGroupedSigmoid, true, 4, 2, 2.5},
          {GateKind::kGroupedSigmoid, false, 8, 3, 1.0},
          {GateKind::kGroupedSigmoid, true, 1, 1, 2.5},
          {GateKind::kSoftmaxTopK, true},
          {GateKind::kSoftmaxTopK, false},
          {GateKind::kSoftmaxTopK, false, 4, 2, 16.0},
          {GateKind::kSoftmaxTopK, false, 8, 3, 1.0}};
}

Token random_token(std::mt19937& rng, const GateRule& rule, size_t n) {
  std::normal_distribution<float> normal(0.0f, 2.0f);
  Token token;
  for (size_t i = 0; i < n; ++i) {
    token.logits.push_back(normal(rng));
    token.correction.push_back(0.3f * normal(rng));  // some choice scores are negative
    const bool inside = rng() % 8 != 0;
    token.group.push_back(inside ? static_cast<int32_t>(rng() % static_cast<uint32_t>(rule.n_group))
                                 : -1);
  }
  return token;
}

class GateKinds : public ::testing::TestWithParam<size_t> {
 protected:
  GateRule rule_ = rules()[GetParam()];
  std::mt19937 rng_{kSeed};
};

TEST_P(GateKinds, MatchASlowReference) {
  if (rule_.kind == GateKind::kSoftmaxTopK) GTEST_SKIP() << "gating_test.cc has it";
  for (int round = 0; round < 500; ++round) {
    Token token = random_token(rng_, rule_, 2 + rng_() % 60);
    for (float& logit : token.logits) {
      if (rng_() % 6 == 0) logit = kMasked;
    }
    const int64_t k = 1 + static_cast<int64_t>(rng_() % 9);
    const Reference want = reference(rule_, token, static_cast<size_t>(k));
    const std::vector<GateChoice> got = select(rule_, token, k);
    ASSERT_EQ(got.size(), want.experts.size());
    double sum = 0.0;
    for (const double w : want.weights) sum += w;
    for (size_t j = 0; j < got.size(); ++j) {
      EXPECT_EQ(static_cast<size_t>(got[j].expert), want.experts[j]) << "round " << round;
      // Two roundings to float, of the weight and of the scaling factor.
      EXPECT_NEAR(double{got[j].weight}, want.weights[j], 2.5 * 1.2e-7);
      EXPECT_NEAR(double{got[j].mass}, want.weights[j] / sum, 1.2e-7);
    }
  }
}

void expect_same_bits(const std::vector<GateChoice>& a, const std::vector<GateChoice>& b,
                      const std::vector<size_t>& a_of_b) {
  ASSERT_EQ(a.size(), b.size());
  for (size_t j = 0; j < a.size(); ++j) {
    EXPECT_EQ(static_cast<size_t>(a[j].expert), a_of_b[static_cast<size_t>(b[j].expert)]);
    EXPECT_EQ(std::bit_cast<uint32_t>(a[j].weight), std::bit_cast<uint32_t>(b[j].weight));
    EXPECT_EQ(std::bit_cast<uint32_t>(a[j].mass), std::bit_cast<uint32_t>(b[j].mass));
  }
}

// Design invariants 1 and 2 at their root: masked ones strewn in and another order at once.
TEST_P(GateKinds, MaskedOnesAndTheirOrderChangeNoBit) {
  for (int round = 0; round < 400; ++round) {
    const Token token = random_token(rng_, rule_, 32);
    std::vector<size_t> order(token.logits.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::shuffle(order.begin(), order.end(), rng_);
    Token other;
    std::vector<size_t> index;  // in `token` of every entry of `other`
    for (const size_t i : order) {
      while (rng_() % 3 == 0) {
        const Token extra = random_token(rng_, rule_, 1);
        other.logits.push_back(kMasked);
        other.correction.push_back(extra.correction[0]);
        other.group.push_back(extra.group[0]);
        index.push_back(SIZE_MAX);
      }
      other.logits.push_back(token.logits[i]);
      other.correction.push_back(token.correction[i]);
      other.group.push_back(token.group[i]);
      index.push_back(i);
    }
    float entropy = 0.0f;
    float other_entropy = 0.0f;
    expect_same_bits(select(rule_, token, 6, &entropy), select(rule_, other, 6, &other_entropy),
                     index);
    EXPECT_EQ(std::bit_cast<uint32_t>(entropy), std::bit_cast<uint32_t>(other_entropy));
  }
}

TEST_P(GateKinds, BadAndNoLogits) {
  Token token = random_token(rng_, rule_, 6);
  token.logits[3] = std::numeric_limits<float>::quiet_NaN();
  std::vector<GateChoice> out(3);
  EXPECT_EQ(select_experts(rule_, token.scores(), 3, out, nullptr), -1);
  token.logits[3] = std::numeric_limits<float>::infinity();
  EXPECT_EQ(select_experts(rule_, token.scores(), 3, out, nullptr), -1);
  std::fill(token.logits.begin(), token.logits.end(), kMasked);
  float entropy = -1.0f;
  EXPECT_EQ(select_experts(rule_, token.scores(), 3, out, &entropy), 0);
  EXPECT_EQ(entropy, 0.0f);
}

TEST_P(GateKinds, TiesGoToTheLowerIndexAndEntropyIsOfEquals) {
  Token token;
  token.logits.assign(8, 0.5f);
  token.correction.assign(8, 0.0f);
  token.group.assign(8, 0);
  float entropy = 0.0f;
  const auto got = select(rule_, token, 3, &entropy);
  ASSERT_EQ(got.size(), 3u);
  for (int j = 0; j < 3; ++j) EXPECT_EQ(got[static_cast<size_t>(j)].expert, j);
  EXPECT_NEAR(entropy, std::log(8.0), 1e-6);
}

TEST_P(GateKinds, ExtremeLogitsStayFinite) {
  const float big = std::numeric_limits<float>::max();
  Token token;
  token.logits = {-big, -big, -200.0f, big};
  token.correction.assign(4, 0.0f);
  token.group.assign(4, -1);
  for (const size_t n : {size_t{2}, size_t{3}, size_t{4}}) {
    Token part{{token.logits.begin(), token.logits.begin() + static_cast<ptrdiff_t>(n)},
               std::vector<float>(n, 0.0f),
               std::vector<int32_t>(n, -1)};
    float entropy = -1.0f;
    float mass = 0.0f;
    for (const GateChoice& c : select(rule_, part, 4, &entropy)) {
      EXPECT_TRUE(std::isfinite(c.weight));
      mass += c.mass;
    }
    EXPECT_NEAR(mass, 1.0f, 1e-6f);
    EXPECT_TRUE(std::isfinite(entropy));
  }
}

INSTANTIATE_TEST_SUITE_P(All, GateKinds, ::testing::Range(size_t{0}, rules().size()));

const GateRule kGrouped{GateKind::kGroupedSigmoid, false, 2, 1, 1.0};

TEST(GroupedGate, ExpertsOfLosingGroupsAreOutEvenWhenTheOthersScoreBelowZero) {
  // Group 0 wins by its two largest; its third has a negative choice score, and is chosen still.
  const Token token{{3.0f, 3.0f, -3.0f, 4.0f, -9.0f, -9.0f},
                    {0.0f, 0.0f, -1.0f, 0.0f, 0.0f, 0.0f},
                    {0, 0, 0, 1, 1, 1}};
  const auto got = select(kGrouped, token, 3);
  ASSERT_EQ(got.size(), 3u);
  EXPECT_EQ(got[0].expert, 0);
  EXPECT_EQ(got[1].expert, 1);
  EXPECT_EQ(got[2].expert, 2);
  EXPECT_NEAR(got[2].weight, sigmoid(-3.0), 1e-7);  // without the correction
}

TEST(GroupedGate, AGroupCountsByItsTwoLargest) {
  // Group 1 has the single largest score, group 0 the larger sum of two.
  const Token token{{1.0f, 1.0f, 2.0f, -5.0f}, std::vector<float>(4, 0.0f), {0, 0, 1, 1}};
  const auto got = select(kGrouped, token, 1);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].expert, 0);
}

TEST(GroupedGate, WithASoftmaxAGroupCountsByItsLargest) {
  const Token token{{1.0f, 1.0f, 2.0f, -5.0f}, {}, {0, 0, 1, 1}};
  const auto got = select({GateKind::kSoftmaxTopK, false, 2, 1, 16.0}, token, 2);
  ASSERT_EQ(got.size(), 2u);
  EXPECT_EQ(got[0].expert, 2);
  EXPECT_EQ(got[1].expert, 3);
  // The softmax is over all of them, those of the losing group as well.
  const double sum = 2 * std::exp(1.0) + std::exp(2.0) + std::exp(-5.0);
  EXPECT_NEAR(got[0].weight, 16.0 * std::exp(2.0) / sum, 1e-5);
}

TEST(GroupedGate, AppendedExpertsAreAlwaysEligible) {
  Token token{{3.0f, 3.0f, -1.0f, -1.0f, 0.0f}, std::vector<float>(5, 0.0f), {0, 0, 1, 1, -1}};
  auto got = select(kGrouped, token, 3);
  ASSERT_EQ(got.size(), 3u);
  EXPECT_EQ(got[2].expert, 4);
  token.group[4] = 1;  // of the losing group now
  got = select(kGrouped, token, 3);
  EXPECT_EQ(got.size(), 2u);
}

// The router logits of the reference, through our gates: ids and weights are what it has.
class GoldenGate : public ::testing::TestWithParam<const char*> {};

TEST_P(GoldenGate, ChoosesAndWeighsAsTheReference) {
  const std::string dir = testing::golden_dir() + "/" + GetParam();
  if (!std::filesystem::exists(dir)) GTEST_SKIP() << "no golden checkpoint in " << dir;
  const auto checkpoint = Checkpoint::open(dir, Residency::kMapped);
  ASSERT_TRUE(checkpoint.ok());
  const auto config = parse_model_config(checkpoint->config_json(), dir);
  ASSERT_TRUE(config.ok()) << config.status().to_string();
  const auto golden = SafetensorsFile::open(dir + "/golden.safetensors", Residency::kMapped);
  ASSERT_TRUE(golden.ok());
  size_t checked = 0;
  for (const int64_t layer : moe_layers(*config)) {
    const std::string prefix = "prompt.3.router." + std::to_string(layer) + ".";
    const auto logits = testing::golden_values<float>(*golden, prefix + "logits");
    const auto ids = testing::golden_values<int64_t>(*golden, prefix + "ids");
    const auto weights = testing::golden_values<float>(*golden, prefix + "weights");
    const auto base = read_base_layer(*checkpoint, *config, layer);
    ASSERT_TRUE(base.ok()) << base.status().to_string();
    const auto groups = base_groups(*base, *config);
    ASSERT_TRUE(groups.ok());
    Token token;
    token.group = *groups;
    if (base->score_correction) {
      const auto correction = to_f32(*base->score_correction, config->num_experts);
      ASSERT_TRUE(correction.ok());
      token.correction = *correction;
    }
    const auto e = static_cast<size_t>(config->num_experts);
    const auto k = static_cast<size_t>(config->num_experts_per_tok);
    for (size_t row = 0; row * e < logits.size(); ++row) {
      token.logits.assign(logits.begin() + static_cast<ptrdiff_t>(row * e),
                          logits.begin() + static_cast<ptrdiff_t>((row + 1) * e));
      const auto got = select(gate_rule(*config), token, config->num_experts_per_tok);
      ASSERT_EQ(got.size(), k);
      for (size_t j = 0; j < k; ++j, ++checked) {
        ASSERT_EQ(got[j].expert, ids[row * k + j]) << prefix << " row " << row;
        EXPECT_NEAR(got[j].weight, weights[row * k + j], 1e-5f);
      }
    }
  }
  EXPECT_GT(checked, 0u);
}

INSTANTIATE_TEST_SUITE_P(Open, GoldenGate,
                         ::testing::Values("deepseek_v3_f32", "deepseek_v3_bf16", "flex_olmo_f32",
                                           "llama4_text_f32", "llama4_composite_bf16",
                                           "mixtral_f32", "olmoe_f32", "qwen3_moe_f32",
                                           "qwen3_moe_v5_fused_bf16"),
                         [](const auto& test) { return std::string(test.param); });

TEST(DefaultTopK, ADenseFamilyLeavesRoomForOneAppendedExpert) {
  ModelConfig config;
  config.num_experts = config.num_experts_per_tok = 1;
  EXPECT_EQ(default_top_k(config), 1);
  config.dense_base = true;
  EXPECT_EQ(default_top_k(config), 2);
  // Alone, the dense feed-forward has weight 1 exactly.
  const Token token{{0.0f}, {}, {}};
  const auto got = select({GateKind::kSoftmaxTopK, true}, token, 2);
  ASSERT_EQ(got.size(), 1u);
  EXPECT_EQ(got[0].weight, 1.0f);
}

}  // namespace
}  // namespace chimera
