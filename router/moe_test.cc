// MoeRouter: against a slow reference, and bitwise independent of masks, batches and tables.
#include "router/moe.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <bit>
#include <cstdlib>
#include <new>
#include <numeric>

#include "router/testing.h"

namespace {
std::atomic<int64_t> allocations{0};
}  // namespace

// Not inlined, so that the compiler does not take malloc and delete for a mismatch.
[[gnu::noinline]] void* operator new(size_t size) {
  ++allocations;
  void* memory = std::malloc(size == 0 ? 1 : size);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void* operator new(size_t size, std::align_val_t alignment) {
  ++allocations;
  const auto step = static_cast<size_t>(alignment);
  void* memory = std::aligned_alloc(step, (size + step - 1) / step * step);
  if (memory == nullptr) throw std::bad_alloc();
  return memory;
}
[[gnu::noinline]] void operator delete(void* memory, std::align_val_t) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory, size_t, std::align_val_t) noexcept {
  std::free(memory);
}
[[gnu::noinline]] void operator delete(void* memory) noexcept { std::free(memory); }
[[gnu::noinline]] void operator delete(void* memory, size_t) noexcept { std::free(memory); }

namespace chimera {
namespace {

using namespace chimera::testing;
constexpr uint32_t kSeed = 711;

/// Copies its input, times a factor; counts calls; can misbehave.
class FakeExpert final : public Expert {
 public:
  explicit FakeExpert(float factor) : factor_(factor) {}
  Status forward(const float* x, int64_t rows, float* y, ExpertContext&) const override {
    ++calls;
    rows_seen += rows;
    if (fails) return {Code::kUnavailable, "lost"};
    for (int64_t i = 0; i < rows * 32; ++i) y[i] = factor_ * x[i];
    return {};
  }
  uint64_t resident_bytes() const override { return 0; }
  mutable int calls = 0;
  mutable int64_t rows_seen = 0;
  bool fails = false;

 private:
  float factor_;
};

bool same_bits(const std::vector<float>& a, const std::vector<float>& b) {
  return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(), [](float x, float y) {
           return std::bit_cast<uint32_t>(x) == std::bit_cast<uint32_t>(y);
         });
}

struct Fixture {
  explicit Fixture(ModelConfig c) : config(std::move(c)), rng(kSeed), pool(2) {
    base = random_module(rng, config, "backbone", config.num_experts, Attach::kAppend);
  }

  std::vector<float> run(const std::shared_ptr<const RoutingTable>& table, const ModuleMask& mask,
                         const std::vector<float>& x, std::vector<float> bias = {},
                         RoutedSegment* out = nullptr, RouterStats* stats = nullptr) {
    auto view = make_route_view(table, mask, std::move(bias));
    EXPECT_TRUE(view.ok());
    MoeRouter router(config, best_kernels(), pool);
    RoutedSegment segment = out == nullptr ? RoutedSegment{} : *out;
    segment.view = view->get();
    segment.rows = static_cast<int64_t>(x.size()) / config.hidden_size;
    std::vector<float> y = run_layers(router, config, {&segment, 1}, x, stats);
    if (out != nullptr) *out = segment;
    return y;
  }

  ModelConfig config;
  std::mt19937 rng;
  ThreadPool pool;
  std::shared_ptr<const Module> base;
};

/// The mixture of one layer and row in double, from the definition.
std::vector<double> reference_row(const Fixture& f, const RoutingTable& table, size_t layer,
                                  const float* x) {
  const LayerTable& part = table.layers()[layer];
  const auto hidden = static_cast<size_t>(f.config.hidden_size);
  std::vector<double> p(static_cast<size_t>(part.candidates));
  double sum = 0.0;
  for (size_t c = 0; c < p.size(); ++c) {
    double logit = double{table.bias(layer, c)};
    const float* gate = part.gate_row(static_cast<int64_t>(c));
    for (size_t i = 0; i < hidden; ++i) logit += double{gate[i]} * double{x[i]};
    sum += p[c] = std::exp(logit);
  }
  std::vector<size_t> order(p.size());
  std::iota(order.begin(), order.end(), size_t{0});
  std::sort(order.begin(), order.end(), [&](size_t a, size_t b) { return p[a] > p[b]; });
  order.resize(std::min(order.size(), static_cast<size_t>(table.top_k())));
  double chosen = 0.0;
  for (const size_t c : order) chosen += p[c];
  std::vector<double> y(hidden, 0.0);
  ThreadPool pool(1);
  FloatBuffer scratch;
  ExpertContext context{kernels_for(Isa::kScalar), pool, scratch};
  std::vector<float> out(hidden);
  for (const size_t c : order) {
    EXPECT_TRUE(part.experts[c]->forward(x, 1, out.data(), context).ok());
    const double weight = p[c] / (f.config.norm_topk_prob ? chosen : sum);
    for (size_t i = 0; i < hidden; ++i) y[i] += weight * double{out[i]};
  }
  return y;
}

TEST(MoeRouter, AMaskedModuleLeavesNoTraceOfTheTopKItWasFittedFor) {
  Fixture f(small_config(6, 2, true));
  const auto legal = random_module(f.rng, f.config, "legal", 2, Attach::kAppend);
  legal->manifest.top_k = 4;
  const std::vector<float> x = random_values(f.rng, 3 * f.config.hidden_size, 1.0f);
  const std::vector<float> without = f.run(make_table(f.config, f.base, {}), {0}, x);
  const auto table = make_table(f.config, f.base, {legal});
  EXPECT_TRUE(same_bits(f.run(table, {0}, x), without));
  Composition stated;
  stated.top_k = 4;
  stated.modules = {entry("legal")};
  const std::vector<float> four = f.run(make_table(f.config, f.base, {legal}, stated), {0, 1}, x);
  EXPECT_TRUE(same_bits(f.run(table, {0, 1}, x), four));
  EXPECT_FALSE(same_bits(four, without));
}

TEST(MoeRouter, MatchesTheDefinition) {
  for (const bool norm : {false, true}) {
    Fixture f(small_config(6, 3, norm));
    const auto extra = random_module(f.rng, f.config, "extra", 2, Attach::kAppend);
    Composition composition;
    composition.modules = {entry("extra", 0.7f)};
    const auto table = make_table(f.config, f.base, {extra}, composition);
    ASSERT_NE(table, nullptr);
    const int64_t rows = 9;
    const std::vector<float> x = random_values(f.rng, rows * f.config.hidden_size, 1.0f);
    const std::vector<float> y = f.run(table, table->all(), x);
    ASSERT_EQ(y.size(), x.size() * 2);
    for (size_t layer = 0; layer < 2; ++layer) {
      for (int64_t row = 0; row < rows; ++row) {
        const int64_t at = row * f.config.hidden_size;
        const auto want = reference_row(f, *table, layer, x.data() + at);
        for (size_t i = 0; i < want.size(); ++i) {
          const size_t index = layer * x.size() + static_cast<size_t>(at) + i;
          ASSERT_NEAR(double{y[index]}, want[i], 1e-4) << "layer " << layer << " row " << row;
        }
      }
    }
  }
}

// Design invariant 2, for both ways to attach and for biases on the masked module.
TEST(MoeRouter, MaskedModuleIsBitwiseTheSameAsNeverLoaded) {
  for (const Attach attach : {Attach::kAppend, Attach::kReplace}) {
    for (const bool own_rows : {true, false}) {
      if (attach == Attach::kAppend && !own_rows) continue;
      Fixture f(small_config(6, 3, own_rows));
      const auto kept = random_module(f.rng, f.config, "kept", 1, Attach::kReplace);
      const auto masked = random_module(f.rng, f.config, "masked", 2, attach);
      const auto last = random_module(f.rng, f.config, "last", 1, Attach::kAppend);
      if (!own_rows) {
        for (auto& [layer, part] : masked->layers) part.gate_weight.clear();
        for (auto& [layer, part] : kept->layers) part.gate_weight.clear();
      }
      Composition with;
      with.modules = {entry("masked", 0.4f), entry("kept", 0.1f), entry("last", -0.3f)};
      Composition without;
      without.modules = {entry("kept", 0.1f), entry("last", -0.3f)};
      const auto all = make_table(f.config, f.base, {masked, kept, last}, with);
      const auto never = make_table(f.config, f.base, {kept, last}, without);
      ASSERT_NE(all, nullptr);
      ASSERT_NE(never, nullptr);
      const std::vector<float> x = random_values(f.rng, 40 * f.config.hidden_size, 1.0f);
      const auto a = f.run(all, all->all() & ModuleMask{0, 2, 3}, x);
      const auto b = f.run(never, never->all(), x);
      EXPECT_TRUE(same_bits(a, b));
      EXPECT_FALSE(same_bits(a, f.run(all, all->all(), x))) << "the module changes nothing at all";
      EXPECT_EQ(all->scope(all->all() & ModuleMask{0, 2, 3}, {}), never->scope(never->all(), {}));
      EXPECT_NE(all->scope(all->all(), {}), never->scope(never->all(), {}));
    }
  }
}

/// Segments on two tables in one batch, against each of them alone.
void expect_rows_independent_of_their_batch(ModelConfig config) {
  Fixture f(std::move(config));
  const auto a =
      make_table(f.config, f.base, {random_module(f.rng, f.config, "a", 2, Attach::kAppend)});
  const auto b =
      make_table(f.config, f.base, {random_module(f.rng, f.config, "b", 3, Attach::kAppend)});
  const auto hidden = static_cast<size_t>(f.config.hidden_size);
  const std::vector<int64_t> sizes{1, 17, 1, 5, 64};
  std::vector<std::shared_ptr<const RouteView>> views;
  std::vector<std::vector<float>> inputs;
  std::vector<float> batch;
  for (size_t s = 0; s < sizes.size(); ++s) {
    const auto& table = s % 2 == 0 ? a : b;
    views.push_back(*make_route_view(table, table->all(), {}));
    inputs.push_back(random_values(f.rng, sizes[s] * f.config.hidden_size, 1.0f));
    batch.insert(batch.end(), inputs.back().begin(), inputs.back().end());
  }
  std::vector<RoutedSegment> segments(sizes.size());
  for (size_t s = 0; s < sizes.size(); ++s) {
    segments[s].view = views[s].get();
    segments[s].rows = sizes[s];
  }
  MoeRouter router(f.config, best_kernels(), f.pool);
  const std::vector<float> together = run_layers(router, f.config, segments, batch);
  size_t row0 = 0;
  for (size_t s = 0; s < sizes.size(); ++s) {
    const auto alone = f.run(s % 2 == 0 ? a : b, ModuleMask::first(64), inputs[s]);
    for (size_t layer = 0; layer < 2; ++layer) {
      const auto begin =
          together.begin() + static_cast<ptrdiff_t>(layer * batch.size() + row0 * hidden);
      const auto begin_alone = alone.begin() + static_cast<ptrdiff_t>(layer * inputs[s].size());
      const auto n = static_cast<ptrdiff_t>(inputs[s].size());
      EXPECT_TRUE(same_bits({begin, begin + n}, {begin_alone, begin_alone + n})) << "segment " << s;
    }
    row0 += static_cast<size_t>(sizes[s]);
  }
}

TEST(MoeRouter, RowsDoNotDependOnTheirBatch) {
  expect_rows_independent_of_their_batch(small_config(8, 3, false));
}

TEST(MoeRouter, ManyModulesAreScoredTogetherByAllThreadsAsEachAloneWouldBe) {
  ModelConfig config = small_config(8, 3, false);
  config.hidden_size = 2048;  // so that some dozens of candidates are work for several threads
  config.intermediate_size = 2;
  Fixture f(config);
  std::vector<std::shared_ptr<const Module>> all, even;
  ModuleMask even_ones{0};
  for (size_t i = 0; i < 90; ++i) {
    all.push_back(random_module(f.rng, config, "m" + std::to_string(i), 3, Attach::kAppend));
    if (i % 2 != 0) continue;
    even.push_back(all.back());
    even_ones.add(i + 1);
  }
  const auto table = make_table(config, f.base, all);
  const auto without_odd = make_table(config, f.base, even);
  ASSERT_EQ(table->layers()[0].blocks.size(), 1u) << "the rows lie together";
  EXPECT_EQ(*table->layers()[1].gate_row(50), all[14]->layers.at(1).gate_weight[0]);
  const std::vector<float> x = random_values(f.rng, 5 * config.hidden_size, 1.0f);
  const std::vector<float> first(x.begin(), x.begin() + config.hidden_size);

  std::vector<std::vector<float>> rows, masked;
  std::vector<double> entropies;
  for (const int threads : {1, 2, 7}) {  // fewer than rows, and more
    ThreadPool pool(threads);
    MoeRouter router(config, best_kernels(), pool);
    const auto view = *make_route_view(table, table->all(), {});
    const auto some = *make_route_view(table, even_ones, {});
    RoutedSegment segment;
    segment.view = view.get();
    segment.rows = 5;
    rows.push_back(run_layers(router, config, {&segment, 1}, x));
    segment.rows = 1;
    RouterStats stats;
    const std::vector<float> alone = run_layers(router, config, {&segment, 1}, first, &stats);
    entropies.push_back(stats.layers[1].entropy_sum);
    EXPECT_EQ(entropies.back(), entropies.front()) << threads;
    EXPECT_TRUE(std::equal(alone.begin(), alone.begin() + config.hidden_size, rows[0].begin()));
    segment.view = some.get();
    masked.push_back(run_layers(router, config, {&segment, 1}, first));
    EXPECT_TRUE(same_bits(rows.back(), rows.front())) << threads;
    EXPECT_TRUE(same_bits(masked.back(), masked.front())) << threads;
  }
  EXPECT_TRUE(same_bits(masked[0], f.run(without_odd, without_odd->all(), first)));
  EXPECT_NE(masked[0], std::vector<float>(masked[0].size(), 0.0f));
}

TEST(MoeRouter, ExpertsTooLargeToRunTogetherRunInTurn) {
  ModelConfig config = small_config(3, 3, false);
  config.intermediate_size = 4096;  // 88 rows of three experts: 8 MiB of scratch memory
  expect_rows_independent_of_their_batch(config);
}

TEST(MoeRouter, OneExpertOfTwoTablesIsOneBatch) {
  Fixture f(small_config(1, 1, true));
  auto base = std::make_shared<Module>();
  base->manifest.name = "backbone";
  const auto expert = std::make_shared<FakeExpert>(2.0f);
  for (int64_t layer = 0; layer < 2; ++layer) {
    base->layers[layer] = {{expert}, {0}, std::vector<float>(32, 0.0f), {}, {}, {}};
  }
  const auto one = make_table(f.config, base, {});
  const auto two = make_table(f.config, base, {});
  const auto view_one = *make_route_view(one, {0}, {});
  const auto view_two = *make_route_view(two, {0}, {});
  std::vector<RoutedSegment> segments(2);
  segments[0].view = view_one.get();
  segments[0].rows = 3;
  segments[1].view = view_two.get();
  segments[1].rows = 4;
  const std::vector<float> x = random_values(f.rng, 7 * 32, 1.0f);
  MoeRouter router(f.config, best_kernels(), f.pool);
  const auto y = run_layers(router, f.config, segments, x);
  EXPECT_EQ(expert->calls, 2);  // one per layer
  EXPECT_EQ(expert->rows_seen, 14);
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(y[i], 2.0f * x[i]);
}

struct PoisonCase {
  const char* name;
  float factor;
  bool fails;
};

class MoePoison : public ::testing::TestWithParam<PoisonCase> {};

TEST_P(MoePoison, BadExpertConcernsItsOwnRequestsOnly) {
  Fixture f(small_config(4, 2, true));
  auto bad = std::make_shared<Module>();
  bad->manifest.name = "bad";
  const auto expert = std::make_shared<FakeExpert>(GetParam().factor);
  expert->fails = GetParam().fails;
  bad->layers[1] = {{expert}, {}, std::vector<float>(32, 0.0f), {}, {}, {}};
  Composition composition;
  composition.modules = {entry("bad", 50.0f)};
  const auto table = make_table(f.config, f.base, {bad}, composition);
  ASSERT_NE(table, nullptr);
  const auto all = *make_route_view(table, table->all(), {});
  const auto without = *make_route_view(table, {0}, {});
  std::vector<RoutedSegment> segments(3);
  for (size_t s = 0; s < 3; ++s) {
    segments[s].view = s == 1 ? all.get() : without.get();
    segments[s].rows = 2;
  }
  const std::vector<float> x = random_values(f.rng, 6 * 32, 1.0f);
  MoeRouter router(f.config, best_kernels(), f.pool);
  const auto y = run_layers(router, f.config, segments, x);
  EXPECT_FALSE(segments[0].poisoned);
  EXPECT_TRUE(segments[1].poisoned);
  EXPECT_FALSE(segments[2].poisoned);
  EXPECT_NE(segments[1].failure.message().find("module bad, layer 1, expert 0"), std::string::npos)
      << segments[1].failure.message();
  for (size_t i = 2 * 32; i < 4 * 32; ++i) EXPECT_EQ(y[6 * 32 + i], 0.0f);
  const auto clean = f.run(table, {0}, x);
  const auto part = [&](const std::vector<float>& v, ptrdiff_t row) {
    return std::vector<float>(v.begin() + (6 + row) * 32, v.begin() + (8 + row) * 32);
  };
  EXPECT_TRUE(same_bits(part(y, 0), part(clean, 0)));
  EXPECT_TRUE(same_bits(part(y, 4), part(clean, 4)));
}

INSTANTIATE_TEST_SUITE_P(
    Router, MoePoison,
    ::testing::Values(PoisonCase{"nan", std::numeric_limits<float>::quiet_NaN(), false},
                      PoisonCase{"infinity", std::numeric_limits<float>::infinity(), false},
                      PoisonCase{"fails", 1.0f, true}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(MoeRouter, NonFiniteInputPoisonsItsSegment) {
  Fixture f(small_config(4, 2, true));
  const auto table = make_table(f.config, f.base, {});
  const auto view = *make_route_view(table, {0}, {});
  std::vector<RoutedSegment> segments(2);
  for (auto& s : segments) {
    s.view = view.get();
    s.rows = 1;
  }
  std::vector<float> x = random_values(f.rng, 2 * 32, 1.0f);
  x[40] = std::numeric_limits<float>::quiet_NaN();
  MoeRouter router(f.config, best_kernels(), f.pool);
  const auto y = run_layers(router, f.config, segments, x);
  EXPECT_FALSE(segments[0].poisoned);
  EXPECT_TRUE(segments[1].poisoned);
  for (const float v : y) EXPECT_TRUE(std::isfinite(v));
}

TEST(MoeRouter, UsageStatsAndTraceAgree) {
  Fixture f(small_config(5, 3, false));
  const auto extra = random_module(f.rng, f.config, "extra", 2, Attach::kAppend);
  const auto table = make_table(f.config, f.base, {extra});
  const int64_t rows = 30;
  const std::vector<float> x = random_values(f.rng, rows * 32, 1.0f);
  SequenceUsage usage;
  RouterStats stats;
  stats.pass = {.number = 7, .unix_ms = 3};
  RoutingTrace trace;
  RoutedSegment segment;
  segment.usage = &usage;
  segment.trace = &trace;
  f.run(table, table->all(), x, {}, &segment, &stats);
  ASSERT_TRUE(stats.last_pass.contains("extra"));
  EXPECT_EQ(stats.last_pass["extra"].number, 7u);

  EXPECT_NEAR(usage.total, 2.0 * static_cast<double>(rows), 1e-4);
  EXPECT_NEAR(usage.share("backbone") + usage.share("extra"), 1.0, 1e-9);
  EXPECT_GT(usage.share("extra"), 0.0);
  EXPECT_EQ(usage.share("unknown"), 0.0);
  ASSERT_EQ(trace.rows, rows);
  ASSERT_EQ(trace.k, 3);
  ASSERT_EQ(stats.layers.size(), 2u);
  for (size_t layer = 0; layer < 2; ++layer) {
    const RouterStats::Layer& l = stats.layers[layer];
    EXPECT_EQ(l.tokens, static_cast<uint64_t>(rows));
    EXPECT_GT(l.entropy_sum, 0.0);
    EXPECT_LT(l.entropy_sum, static_cast<double>(rows) * std::log(7.0));
    std::vector<uint64_t> seen(7, 0);
    for (size_t i = 0; i < static_cast<size_t>(rows) * 3; ++i) {
      ++seen[static_cast<size_t>(trace.ids[layer * static_cast<size_t>(rows) * 3 + i])];
    }
    ASSERT_EQ(l.expert_tokens.at("backbone").size(), 5u);
    ASSERT_EQ(l.expert_tokens.at("extra").size(), 2u);
    for (size_t e = 0; e < 7; ++e) {
      const auto& counts = l.expert_tokens.at(e < 5 ? "backbone" : "extra");
      EXPECT_EQ(counts[e < 5 ? e : e - 5], seen[e]) << "slot " << e;
    }
  }

  // A module that nobody chose is not counted, so that very many of them cost a pass nothing.
  RouterStats without;
  RoutedSegment excluding;
  f.run(table, {0}, x, {}, &excluding, &without);
  ASSERT_EQ(without.layers.size(), 2u);
  for (const RouterStats::Layer& l : without.layers) {
    EXPECT_TRUE(l.expert_tokens.contains("backbone"));
    EXPECT_FALSE(l.expert_tokens.contains("extra"));
    EXPECT_FALSE(l.mass.contains("extra"));
  }
}

TEST(MoeRouter, ProvisionalRowsAreInNothingUntilTheyCount) {
  Fixture f(small_config(5, 3, false));
  const auto extra = random_module(f.rng, f.config, "extra", 2, Attach::kAppend);
  const auto table = make_table(f.config, f.base, {extra});
  const auto view = *make_route_view(table, table->all(), {});
  const std::vector<float> x = random_values(f.rng, 3 * 32, 1.0f);
  const auto row = [&](size_t i) {
    return std::vector<float>(x.begin() + static_cast<ptrdiff_t>(i * 32),
                              x.begin() + static_cast<ptrdiff_t>((i + 1) * 32));
  };
  // Row 0 counts, of 1 and 2 the latter: as if row 2 had run after row 0.
  SequenceUsage expected, expected_last;
  RouterStats expected_stats;
  for (const size_t i : {0, 2}) {
    RoutedSegment segment;
    segment.usage = &expected;
    segment.last_row = &expected_last;
    f.run(table, table->all(), row(i), {}, &segment, &expected_stats);
  }
  SequenceUsage usage, last;
  RouterStats stats;
  stats.pass = {.number = 7, .unix_ms = 3};
  std::vector<RoutedSegment> segments(3);
  for (RoutedSegment& segment : segments) {
    segment.view = view.get();
    segment.rows = 1;
    segment.usage = &usage;
    segment.last_row = &last;
    segment.provisional = &segment != &segments.front();
  }
  MoeRouter router(f.config, best_kernels(), f.pool);
  run_layers(router, f.config, segments, x, &stats);
  EXPECT_EQ(usage.rows_of("backbone") + usage.rows_of("extra"), 2u * 3);
  EXPECT_EQ(stats.layers[0].tokens, 1u);
  EXPECT_EQ(stats.last_pass.at("backbone").number, 7u);
  router.count(2);
  EXPECT_EQ(usage.mass, expected.mass);
  EXPECT_EQ(usage.rows, expected.rows);
  EXPECT_EQ(usage.total, expected.total);
  EXPECT_EQ(last.mass, expected_last.mass);
  for (size_t l = 0; l < 2; ++l) {
    EXPECT_EQ(stats.layers[l].tokens, expected_stats.layers[l].tokens);
    EXPECT_EQ(stats.layers[l].expert_tokens, expected_stats.layers[l].expert_tokens);
    EXPECT_EQ(stats.layers[l].mass, expected_stats.layers[l].mass);
    EXPECT_EQ(stats.layers[l].entropy_sum, expected_stats.layers[l].entropy_sum);
  }
}

TEST(MoeRouter, TraceGrowsOverChunksAndKeepsEarlierRows) {
  Fixture f(small_config(5, 2, true));
  const auto table = make_table(f.config, f.base, {});
  const std::vector<float> x = random_values(f.rng, 12 * 32, 1.0f);
  RoutingTrace whole;
  RoutedSegment segment;
  segment.trace = &whole;
  f.run(table, {0}, x, {}, &segment);
  RoutingTrace chunks;
  for (const auto& [begin, end] : {std::pair{0, 5}, std::pair{5, 6}, std::pair{6, 12}}) {
    RoutedSegment part;
    part.trace = &chunks;
    part.trace_row = begin;
    f.run(table, {0}, {x.begin() + begin * 32, x.begin() + end * 32}, {}, &part);
  }
  EXPECT_EQ(chunks.rows, 12);
  EXPECT_EQ(whole.ids, chunks.ids);
  EXPECT_EQ(whole.weights, chunks.weights);
}

TEST(MoeRouter, RequestBiasMovesMass) {
  Fixture f(small_config(4, 2, true));
  const auto extra = random_module(f.rng, f.config, "extra", 1, Attach::kAppend);
  const auto table = make_table(f.config, f.base, {extra});
  const std::vector<float> x = random_values(f.rng, 20 * 32, 1.0f);
  double previous = -1.0;
  for (const float bias : {-30.0f, 0.0f, 30.0f}) {
    SequenceUsage usage;
    RoutedSegment segment;
    segment.usage = &usage;
    f.run(table, table->all(), x, {0.0f, bias}, &segment);
    EXPECT_GT(usage.share("extra"), previous);
    previous = usage.share("extra");
  }
  EXPECT_GT(previous, 0.99);
  EXPECT_FALSE(make_route_view(table, {0, 1}, {0.0f}).ok());
  EXPECT_EQ(make_route_view(table, {0, 1}, {0.0f, NAN}).status().code(), Code::kInvalidArgument);
}

TEST(MoeRouter, WrongRowCountIsAnError) {
  Fixture f(small_config(4, 2, true));
  const auto table = make_table(f.config, f.base, {});
  const auto view = *make_route_view(table, {0}, {});
  RoutedSegment segment;
  segment.view = view.get();
  segment.rows = 2;
  MoeRouter router(f.config, best_kernels(), f.pool);
  router.begin_pass({&segment, 1}, nullptr);
  std::vector<float> x(3 * 32, 0.0f);
  std::vector<float> y(3 * 32);
  EXPECT_EQ(router.forward(0, x.data(), 3, y.data()).code(), Code::kInternal);
  EXPECT_EQ(router.forward(2, x.data(), 2, y.data()).code(), Code::kInternal);
}

TEST(MoeRouter, DoesNotAllocateInSteadyState) {
  Fixture f(small_config(6, 3, true));
  const auto table = make_table(f.config, f.base, {});
  const auto view = *make_route_view(table, {0}, {});
  SequenceUsage usage;
  RouterStats stats;
  RoutedSegment segment;
  segment.view = view.get();
  segment.rows = 24;
  segment.usage = &usage;
  const std::vector<float> x = random_values(f.rng, 24 * 32, 1.0f);
  std::vector<float> y(x.size());
  MoeRouter router(f.config, best_kernels(), f.pool);
  int64_t before = 0;
  for (int pass = 0; pass < 5; ++pass) {
    if (pass == 2) before = allocations.load();
    router.begin_pass({&segment, 1}, &stats);
    ASSERT_TRUE(router.forward(0, x.data(), 24, y.data()).ok());
    ASSERT_TRUE(router.forward(1, x.data(), 24, y.data()).ok());
  }
  EXPECT_EQ(allocations.load(), before);
}

}  // namespace
}  // namespace chimera
