#include "daemon/registry/preparation.h"

#include <gtest/gtest.h>

namespace chimera {
namespace {

std::shared_ptr<const Module> module(const std::string& name, const std::string& dir = "/m") {
  auto out = std::make_shared<Module>();
  out->manifest.name = name;
  out->dir = dir;
  return out;
}

LoadedComposition composition(const std::vector<std::shared_ptr<const Module>>& modules) {
  LoadedComposition out;
  for (const auto& one : modules) put_module(&out, one, /*enabled=*/true, /*bias=*/0.0f);
  return out;
}

TEST(Preparation, KeepsWhatItLoadedAndDoesNotKeepWhatIsCurrent) {
  auto current = module("legal"), own = module("bio");
  const std::weak_ptr<const Module> legal = current, bio = own;
  const CurrentModules now(composition({current}));
  Preparation next("sha256:f", 3);
  ASSERT_TRUE(next.add({current, now}, true, 0.5f).ok());
  ASSERT_TRUE(next.add({std::move(own), now}, false, 0.0f).ok());
  EXPECT_FALSE(bio.expired());
  {
    const auto finished = next.finish();
    ASSERT_TRUE(finished.ok());
    EXPECT_EQ(finished->composition.backbone_fingerprint, "sha256:f");
    EXPECT_EQ(finished->composition.top_k, 3);
    ASSERT_EQ(finished->modules.size(), 2u);
    EXPECT_EQ(finished->composition.modules[0].bias, 0.5f);
    EXPECT_FALSE(finished->composition.modules[1].enabled);
  }
  current.reset();  // the revocation
  EXPECT_TRUE(legal.expired()) << "the preparation kept a revoked module in memory";
  EXPECT_EQ(next.finish().status().code(), Code::kUnavailable);
}

TEST(Preparation, TellsASecondModuleOfANameWithBothPlaces) {
  const CurrentModules none({});
  Preparation next("", std::nullopt);
  ASSERT_TRUE(next.add({module("legal", "/a"), none}, true, 0.0f).ok());
  const Status twice = next.add({module("legal", "/b"), none}, true, 0.0f);
  EXPECT_EQ(twice.code(), Code::kAlreadyExists);
  EXPECT_EQ(twice.message(), "module legal: found in /a and in /b (expected names to be distinct)");
  EXPECT_EQ(next.add({module("bio"), none}, true, 1e9f).code(), Code::kInvalidArgument);
}

TEST(CurrentModules, AreToldByOwnerNotByAddress) {
  const auto current = module("legal");
  const CurrentModules known(composition({current}));
  EXPECT_TRUE(known.contains(current));
  EXPECT_FALSE(known.contains(module("legal")));
  // Same owner, another pointer: still that module.
  EXPECT_TRUE(known.contains(std::shared_ptr<const Module>(current, nullptr)));
}

}  // namespace
}  // namespace chimera
