// Experts that compute outside of the caller's threads: begun before all others, finished after
// them, and nothing of the result depends on it.
#include <gtest/gtest.h>

#include <cstring>
#include <future>

#include "router/testing.h"

namespace chimera {
namespace {

using testing::entry;
using testing::make_table;
using testing::random_module;
using testing::random_values;
using testing::run_layers;
using testing::small_config;

/// What happened in one pass, in order: b(egin), r(efused), f(orward), l(ocal), d(one).
struct Log {
  std::string events;
  std::vector<uint64_t> passes;  // that the calls elsewhere were part of
};

/// Passes the rows to another expert, on this thread, and notes it.
class Local : public Expert {
 public:
  Local(std::shared_ptr<const Expert> inner, Log& log) : inner_(std::move(inner)), log_(log) {}
  Status forward(const float* x, int64_t rows, float* y, ExpertContext& ctx) const override {
    log_.events += runs_elsewhere() ? 'f' : 'l';
    return inner_->forward(x, rows, y, ctx);
  }
  uint64_t resident_bytes() const override { return 0; }

 protected:
  const std::shared_ptr<const Expert> inner_;
  Log& log_;
};

/// The same on a thread of its own, from a copy of the rows; one call at a time.
class Elsewhere final : public Local {
 public:
  Elsewhere(std::shared_ptr<const Expert> inner, Log& log, bool& busy)
      : Local(std::move(inner), log), busy_(busy) {}
  bool runs_elsewhere() const override { return true; }
  std::unique_ptr<RunningForward> begin(const float* x, int64_t rows, float* y,
                                        ExpertContext& ctx) const override {
    log_.passes.push_back(ctx.pass);
    log_.events += busy_ ? 'r' : 'b';
    if (std::exchange(busy_, true)) return nullptr;
    return std::make_unique<Running>(*this, std::vector<float>(x, x + rows * 32), y);
  }

 private:
  class Running final : public RunningForward {
   public:
    Running(const Elsewhere& e, std::vector<float> x, float* y)
        : expert_(e), result_(std::async(std::launch::async, [&e, x = std::move(x), y] {
            ThreadPool pool(1);
            FloatBuffer scratch;
            ExpertContext ctx{best_kernels(), pool, scratch};
            return e.inner_->forward(x.data(), static_cast<int64_t>(x.size()) / 32, y, ctx);
          })) {}
    Status finish() override {
      expert_.log_.events += 'd';
      expert_.busy_ = false;
      return result_.get();
    }

   private:
    const Elsewhere& expert_;
    std::future<Status> result_;
  };

  bool& busy_;
};

/// A backbone of four experts and a module of two, all of which note their calls.
struct Model {
  Model() : config(small_config(4, 3, true)) {
    base = random_module(rng, config, "backbone", 4, Attach::kAppend);
    plain = random_module(rng, config, "far", 2, Attach::kAppend);
    far = std::make_shared<Module>(*plain);
    for (auto& [layer, part] : base->layers) {
      for (auto& e : part.experts) e = std::make_shared<Local>(e, log);
    }
    for (auto& [layer, part] : far->layers) {
      for (auto& e : part.experts) e = std::make_shared<Elsewhere>(e, log, busy);
    }
  }
  std::vector<float> outputs(const std::shared_ptr<const Module>& module,
                             const std::vector<float>& x) {
    const auto table = make_table(config, base, {module});
    const auto view = *make_route_view(table, table->all(), {});
    RoutedSegment segment;
    segment.view = view.get();
    segment.rows = static_cast<int64_t>(x.size()) / config.hidden_size;
    MoeRouter router(config, best_kernels(), pool);
    auto y = run_layers(router, config, {&segment, 1}, x);
    EXPECT_FALSE(segment.poisoned) << segment.failure.to_string();
    return y;
  }
  std::mt19937 rng{9};
  ModelConfig config;
  Log log;
  bool busy = false;
  std::shared_ptr<Module> base, plain, far;
  ThreadPool pool{2};
};

TEST(MoeElsewhere, OverlapsWithTheOthersAndChangesNothing) {
  Model m;
  const std::vector<float> x = random_values(m.rng, 20 * m.config.hidden_size, 1.0f);
  const auto expected = m.outputs(m.plain, x);
  m.log.events.clear();
  const auto found = m.outputs(m.far, x);
  ASSERT_EQ(found.size(), expected.size());
  EXPECT_EQ(std::memcmp(found.data(), expected.data(), found.size() * sizeof(float)), 0);
  // Per layer: one begun, its sibling refused, four here, the end, and then the sibling.
  EXPECT_EQ(m.log.events, "brlllldfbrlllldf");
}

TEST(MoeElsewhere, WithoutOthersItStillRuns) {
  Model m;
  m.config.num_experts_per_tok = 1;
  Composition only;
  only.modules = {entry("far", 100.0f)};  // every row chooses the module
  const auto table = make_table(m.config, m.base, {m.far}, only);
  const auto view = *make_route_view(table, table->all(), {});
  RoutedSegment segment;
  segment.view = view.get();
  segment.rows = 1;
  MoeRouter router(m.config, best_kernels(), m.pool);
  const std::vector<float> x = random_values(m.rng, m.config.hidden_size, 1.0f);
  EXPECT_FALSE(run_layers(router, m.config, {&segment, 1}, x).empty());
  EXPECT_EQ(m.log.events, "bdbd");
  // Both layers are one pass, and the next pass is another.
  run_layers(router, m.config, {&segment, 1}, x);
  ASSERT_EQ(m.log.passes.size(), 4u);
  EXPECT_NE(m.log.passes[0], 0u);
  EXPECT_EQ(m.log.passes[0], m.log.passes[1]);
  EXPECT_EQ(m.log.passes[2], m.log.passes[3]);
  EXPECT_NE(m.log.passes[0], m.log.passes[2]);
}

}  // namespace
}  // namespace chimera
