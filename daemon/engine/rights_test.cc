// A module outside of a client's rights is for it, bit for bit, as if it were not loaded.
#include <random>

#include "daemon/engine/sequence/module_selection.h"
#include "daemon/engine/testing.h"

namespace chimera {
namespace {

using namespace testing_support;

const std::vector<std::string> kNames = {"a", "b", "c"};

class EngineRights : public testing::Test {
 protected:
  void SetUp() override {
    CHIMERA_NEEDS_GOLDEN();
    world_ = std::make_unique<World>();
    for (const std::string& name : kNames) modules_[name] = world_->module(name);
  }
  std::unique_ptr<Engine> engine(const std::vector<std::string>& names,
                                 EngineOptions options = {}) const {
    return must(Engine::create(world_->backbone, nullptr, table(1, names), options));
  }
  std::shared_ptr<const RoutingTable> table(uint64_t epoch,
                                            const std::vector<std::string>& names) const {
    std::vector<std::shared_ptr<const Module>> loaded;
    for (const std::string& name : names) loaded.push_back(modules_.at(name));
    return world_->table(epoch, loaded);
  }
  static ModuleRightsPtr rights(std::vector<std::string> names) {
    return std::make_shared<const ModuleRights>(std::move(names));
  }

  std::unique_ptr<World> world_;
  std::map<std::string, std::shared_ptr<const Module>> modules_;
};

EngineRequest score(std::vector<int32_t> tokens) {
  EngineRequest request;
  request.kind = EngineRequest::Kind::kScore;
  request.tokens = std::move(tokens);
  request.want_logits = request.want_routing = request.want_logprobs = true;
  return request;
}

TEST_F(EngineRights, RandomRightsMasksAndCompositions) {
  const uint32_t seed = std::random_device{}();
  SCOPED_TRACE(testing::Message() << "seed " << seed);
  std::mt19937 rng(seed);
  const auto some = [&](const std::vector<std::string>& of) {
    std::vector<std::string> out;
    for (const std::string& name : of) {
      if (rng() % 2 == 0) out.push_back(name);
    }
    return out;
  };
  for (int round = 0; round < 200; ++round) {
    std::vector<std::string> composition = some(kNames);
    std::shuffle(composition.begin(), composition.end(), rng);
    const std::vector<std::string> allowed = some(kNames);
    std::vector<std::string> visible;
    for (const std::string& name : composition) {
      if (std::find(allowed.begin(), allowed.end(), name) != allowed.end()) visible.push_back(name);
    }
    EngineRequest request = score(prompt(static_cast<int32_t>(round), 6));
    if (rng() % 2 == 0) request.modules.only = some(visible);
    request.modules.exclude = some(visible);
    for (const std::string& name : some(visible)) request.modules.bias[name] = 0.5f;

    const DoneEvent expected = submit(*engine(visible), request)->done();
    request.modules.rights = rights(allowed);
    const DoneEvent found = submit(*engine(composition), request)->done();
    ASSERT_EQ(*found.logits, *expected.logits) << round;
    EXPECT_EQ(found.routing->ids, expected.routing->ids) << round;
    EXPECT_EQ(found.routing->weights, expected.routing->weights) << round;
    EXPECT_EQ(found.composition, expected.composition) << round;
    EXPECT_EQ(found.backbone_share, expected.backbone_share) << round;
    ASSERT_EQ(found.modules.size(), expected.modules.size()) << round;
    for (const auto& [name, share] : expected.modules) {
      EXPECT_EQ(found.modules.at(name).share, share.share) << round << name;
    }
    if (round % 10 != 0) continue;
    EngineRequest embed = request;
    embed.kind = EngineRequest::Kind::kEmbed;
    const DoneEvent hidden = submit(*engine(composition), embed)->done();
    embed.modules.rights = nullptr;
    EXPECT_EQ(hidden.embedding, submit(*engine(visible), embed)->done().embedding) << round;
    EXPECT_EQ(hidden.composition, expected.composition) << round;
  }
}

TEST_F(EngineRights, HiddenNamesAreNamesThatNeverWere) {
  const auto with_all = engine({"a", "b", "c"}), with_b = engine({"b"});
  for (const std::string& name : {std::string("a"), std::string("zzz")}) {
    for (int field = 0; field < 3; ++field) {
      EngineRequest request = score(prompt(1, 4));
      if (field == 0) request.modules.only = {name};
      if (field == 1) request.modules.exclude = {name};
      if (field == 2) request.modules.bias[name] = 1.0f;
      const auto expected = with_b->submit(request, std::make_shared<Collector>()).status();
      request.modules.rights = rights({"b"});
      const auto found = with_all->submit(request, std::make_shared<Collector>()).status();
      EXPECT_EQ(found.code(), Code::kNotFound);
      EXPECT_EQ(found.to_string(), expected.to_string());
    }
  }
  const PublishedEpoch shown = with_all->current(rights({"b"}));
  EXPECT_EQ(shown.composition, with_b->current().composition);
  EXPECT_EQ(shown.notes, with_b->current().notes);
}

TEST_F(EngineRights, WithdrawnAndGrantedWhileTokensFlow) {
  const auto running = engine({"a", "b", "c"});
  EngineRequest request = greedy(prompt(3, 8), 60);
  request.modules.rights = rights({"a"});
  Engine::RequestId id = 0;
  const auto sink = submit(*running, request, &id, slowly);
  ASSERT_TRUE(sink->wait_tokens(5));
  running->entitle(id, rights({"b"}));
  const DoneEvent done = sink->done();
  ASSERT_EQ(done.tokens.size(), 60u);
  EXPECT_EQ(running->stats().restarted, 1u);
  EXPECT_TRUE(done.modules.contains("b"));
  EXPECT_FALSE(done.modules.contains("c"));
  EXPECT_EQ(done.composition, table(1, {"b"})->digest());
  // From the change on, as one that began there with the other rights.
  const auto tokens = sink->tokens();
  for (size_t from = 5; from < 60; ++from) {
    EngineRequest rest = greedy(prompt(3, 8), static_cast<int64_t>(60 - from));
    rest.tokens.insert(rest.tokens.end(), done.tokens.begin(),
                       done.tokens.begin() + static_cast<ptrdiff_t>(from));
    const DoneEvent alone = submit(*engine({"b"}), rest)->done();
    const std::vector<int32_t> tail(done.tokens.begin() + static_cast<ptrdiff_t>(from),
                                    done.tokens.end());
    if (alone.tokens == tail) return;
  }
  ADD_FAILURE() << "no token from which the answer is that of the other rights";
}

TEST_F(EngineRights, NothingLeftEndsAsRevokedAndWaitingRequestsAreMet) {
  EngineOptions options;
  options.max_sequences = 1;
  const auto running = engine({"a"}, options);
  Engine::RequestId first = 0, second = 0;
  const auto running_sink = submit(*running, greedy(prompt(3, 8), 400), &first, slowly);
  ASSERT_TRUE(running_sink->wait_tokens(1));
  const auto waiting = submit(*running, greedy(prompt(4, 8), 5), &second);
  running->entitle(second, rights({}));
  running->cancel(first);
  const DoneEvent done = waiting->done();
  EXPECT_FALSE(done.modules.contains("a"));
  EXPECT_EQ(done.composition, table(1, {})->digest());
}

}  // namespace
}  // namespace chimera
