#include "daemon/server/wish.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>

#include "daemon/config/keys.h"

namespace chimera {
namespace {

using ::testing::ElementsAre;
using ::testing::HasSubstr;
using ::testing::Not;

DeploymentConfig running() {
  auto config = parse_deployment(
      R"({"backbone": {"path": "/b"}, "state": "/s", "serve": {"endpoint": "ipc:///r/s"},
          "control": {"endpoint": "ipc:///r/c"}})",
      "running", "/");
  EXPECT_TRUE(config.ok()) << config.status().to_string();
  return config.ok() ? *config : DeploymentConfig{};
}

Status problem(const wire::Wish& wish) { return read_wish(wish, running()).status(); }

TEST(Wish, OfACompositionHasNothingToCompare) {
  const auto wish =
      read_wish({R"({"top_k":3,"modules":[{"path":"/m","bias":0.5}]})", "", ""}, running());
  ASSERT_TRUE(wish.ok()) << wish.status().to_string();
  EXPECT_EQ(wish->composition.top_k, 3);
  EXPECT_EQ(wish->composition.modules[0].path, "/m");
  EXPECT_TRUE(wish->restart.empty());
  EXPECT_EQ(wish->backbone, "");
}

TEST(Wish, ProblemsNameTheKeyAndNoPlaceInTheJson) {
  const Status bad = problem({R"({"modules":[{"path":"/m","bais":1}],"topk":1})", "", ""});
  EXPECT_THAT(bad.message(),
              HasSubstr("composition.modules[0].bais: unknown key (did you mean bias?)"));
  EXPECT_THAT(bad.message(), HasSubstr("\ncomposition.topk: unknown key"));
  EXPECT_THAT(bad.message(), Not(HasSubstr("composition:1:")));
  const Status relative = problem({R"({"modules":[{"path":"m"}]})", "", ""});
  EXPECT_THAT(relative.message(), HasSubstr("composition.modules[0].path: found \"m\""));
  EXPECT_THAT(relative.hint(), HasSubstr("makes paths absolute"));
  const Status deployment =
      problem({"", R"({"backbone":{"path":"/b"},"serve":{"max_context":-1}})", "/d"});
  EXPECT_THAT(deployment.message(), ::testing::StartsWith("serve.max_context: found -1"));
}

TEST(Wish, OfADeploymentTellsWhatNeedsARestart) {
  const auto wish = read_wish({"", R"({"backbone": {"path": "b"}, "state": "/s",
      "serve": {"endpoint": "ipc:///r/s", "max_context": 512}, "threads": 2,
      "control": {"endpoint": "ipc:///r/c"}, "composition": {"modules": [{"path": "m"}]}})",
                               "/d"},
                              running());
  ASSERT_TRUE(wish.ok()) << wish.status().to_string();
  EXPECT_EQ(wish->backbone, "/d/b");
  EXPECT_EQ(wish->composition.modules[0].path, "/d/m");
  ASSERT_EQ(wish->restart.size(), 2u);
  EXPECT_EQ(wish->restart[0].key, "serve.max_context");
  EXPECT_EQ(wish->restart[0].wanted, "512");
  EXPECT_EQ(wish->restart[0].running, "2048");
  EXPECT_EQ(wish->restart[1].key, "threads");
}

// A key that joins the deployment file later must be compared as well.
TEST(Wish, EveryKeyOfADeploymentIsComparedOrApplied) {
  const std::vector<std::string> compared = compared_keys();
  const auto has = [&](const std::string& key) {
    return std::find(compared.begin(), compared.end(), key) != compared.end();
  };
  for (const std::string& key : deployment_keys()) {
    const bool section = std::any_of(compared.begin(), compared.end(),
                                     [&](const auto& one) { return one.starts_with(key + "."); });
    if (key == "chimera" || key == "backbone.path" || key == "watch") continue;
    if (key.starts_with("composition")) continue;
    EXPECT_TRUE(has(key) || section) << key;
  }
}

TEST(Wish, AnotherBackboneIsRefused) {
  const DeploymentConfig config = running();
  EXPECT_TRUE(check_backbone("", config, "sha256:1").ok());
  EXPECT_TRUE(check_backbone("/b", config, "sha256:1").ok());
  EXPECT_EQ(check_backbone("/nowhere", config, "sha256:1").code(), Code::kNotFound);
}

}  // namespace
}  // namespace chimera
