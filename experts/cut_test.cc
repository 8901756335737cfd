// split and graft: what is cut apart and put together again is the same, tensor by tensor.
#include "experts/cut.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <nlohmann/json.hpp>
#include <sstream>

#include "backbone/checkpoint.h"
#include "backbone/model_config.h"
#include "experts/base_tensors.h"
#include "experts/module_report.h"

namespace chimera {
namespace {

std::string golden(const std::string& name) {
  return CHIMERA_SOURCE_DIR "/../shared/golden/open/models/" + name;
}

class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "chimera-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }
  bool empty() const { return std::filesystem::is_empty(path_); }

 private:
  std::string path_;
};

std::string read_text(const std::string& path) {
  std::ifstream file(path);
  std::stringstream text;
  text << file.rdbuf();
  return text.str();
}

/// Names, dtypes, shapes and bytes; and config.json but for its spelling.
void expect_same_checkpoint(const std::string& a, const std::string& b) {
  const auto x = Checkpoint::open(a, Residency::kMapped);
  const auto y = Checkpoint::open(b, Residency::kMapped);
  ASSERT_TRUE(x.ok()) << x.status().to_string();
  ASSERT_TRUE(y.ok()) << y.status().to_string();
  EXPECT_EQ(x->names(), y->names());
  for (const std::string& name : x->names()) {
    const TensorView* p = x->find(name);
    const TensorView* q = y->find(name);
    ASSERT_NE(q, nullptr) << name;
    EXPECT_EQ(p->dtype, q->dtype) << name;
    EXPECT_EQ(p->shape, q->shape) << name;
    EXPECT_TRUE(std::equal(p->bytes.begin(), p->bytes.end(), q->bytes.begin(), q->bytes.end()))
        << name;
  }
  EXPECT_EQ(nlohmann::json::parse(x->config_json()), nlohmann::json::parse(y->config_json()));
}

SplitOptions options_for(const std::string& checkpoint, const TempDir& out) {
  SplitOptions options;
  options.checkpoint_dir = checkpoint;
  options.backbone_out = out / "backbone";
  options.modules_out = out / "modules";
  return options;
}

class Cut : public ::testing::TestWithParam<const char*> {
 protected:
  void SetUp() override {
    dir_ = golden(GetParam());
    if (!std::filesystem::exists(dir_)) GTEST_SKIP() << "no golden checkpoint in " << dir_;
  }
  std::string dir_;
};

TEST_P(Cut, GraftUndoesSplit) {
  const auto checkpoint = Checkpoint::open(dir_, Residency::kMapped);
  ASSERT_TRUE(checkpoint.ok());
  const auto config = parse_model_config(checkpoint->config_json(), "config.json");
  ASSERT_TRUE(config.ok());
  const int64_t last = config->num_experts - 1;
  const std::vector<std::vector<SplitModule>> cuts = {
      {{"tail", {{-1, {last}}}}},
      {{"one", {{-1, {1}}}}, {"two", {{-1, {3, 0}}}}},
      {{"mixed", {{0, {0, 3}}, {1, {1, 2}}, {2, {last, 0}}}}},
  };
  for (const auto& modules : cuts) {
    SCOPED_TRACE(modules[0].name);
    TempDir out;
    SplitOptions split = options_for(dir_, out);
    split.modules = modules;
    split.shard_bytes = 100'000;  // so that both directions write several files
    const auto report = split_checkpoint(split);
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    // Any order of the modules gives the original: their slots are recorded.
    GraftOptions graft{split.backbone_out, report->module_dirs, out / "whole", 200'000};
    std::reverse(graft.module_dirs.begin(), graft.module_dirs.end());
    const auto grafted = graft_checkpoint(graft);
    ASSERT_TRUE(grafted.ok()) << grafted.status().to_string();
    EXPECT_TRUE(grafted->original_slots);
    expect_same_checkpoint(dir_, graft.out_dir);
    for (const std::string& module : report->module_dirs) {
      const auto verified = verify_module(module, split.backbone_out);
      EXPECT_TRUE(verified.ok()) << verified.status().to_string();
      EXPECT_TRUE(verify_module(module, "").ok());
      EXPECT_EQ(verify_module(module, dir_).status().code(), Code::kFailedPrecondition);
    }
  }
}

TEST_P(Cut, ReplaceKeepsTheBackboneAndGraftsBack) {
  TempDir out;
  SplitOptions split = options_for(dir_, out);
  split.attach = Attach::kReplace;
  split.modules = {{"swap", {{0, {2}}, {2, {0, 4}}}}};
  const auto report = split_checkpoint(split);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  expect_same_checkpoint(dir_, split.backbone_out);
  const auto grafted = graft_checkpoint({split.backbone_out, report->module_dirs, out / "whole"});
  ASSERT_TRUE(grafted.ok()) << grafted.status().to_string();
  expect_same_checkpoint(dir_, out / "whole");
}

INSTANTIATE_TEST_SUITE_P(Golden, Cut,
                         ::testing::Values("flex_olmo_f32", "flex_olmo_bf16", "olmoe_f32",
                                           "mixtral_f32", "mixtral_bf16"),
                         [](const auto& test) { return std::string(test.param); });

/// The checkpoint rewritten in the fused layout of transformers 5.
void write_fused(const std::string& from, const std::string& to) {
  const auto checkpoint = Checkpoint::open(from, Residency::kMapped);
  ASSERT_TRUE(checkpoint.ok());
  const auto config = parse_model_config(checkpoint->config_json(), "config.json");
  ASSERT_TRUE(config.ok());
  const TensorNames& names = tensor_names(*config);
  std::vector<TensorView> tensors;
  for (const std::string& name : checkpoint->names()) {
    if (!is_expert_tensor(*config, name)) tensors.push_back(*checkpoint->find(name));
  }
  for (int64_t layer = 0; layer < config->num_layers; ++layer) {
    const auto base = read_base_layer(*checkpoint, *config, layer);
    ASSERT_TRUE(base.ok());
    TensorView gate = base->gate;
    gate.name = layer_tensor(*config, layer, names.fused_gate);
    tensors.push_back(gate);
    auto gate_up = std::make_shared<std::vector<std::byte>>();
    auto down = std::make_shared<std::vector<std::byte>>();
    for (const ExpertViews& expert : base->experts) {
      for (size_t i = 0; i < 3; ++i) {
        auto& stack = i == 2 ? *down : *gate_up;
        stack.insert(stack.end(), expert[i].bytes.begin(), expert[i].bytes.end());
      }
    }
    const DType dtype = base->experts[0][0].dtype;
    const int64_t e = config->num_experts;
    const int64_t h = config->hidden_size;
    const int64_t w = config->intermediate_size;
    tensors.push_back({layer_tensor(*config, layer, names.fused_gate_up),
                       dtype,
                       {e, 2 * w, h},
                       std::span<const std::byte>(*gate_up),
                       gate_up});
    tensors.push_back({layer_tensor(*config, layer, names.fused_down),
                       dtype,
                       {e, h, w},
                       std::span<const std::byte>(*down),
                       down});
  }
  std::filesystem::create_directory(to);
  std::filesystem::copy_file(from + "/config.json", to + "/config.json");
  ASSERT_TRUE(write_safetensors(to + "/model.safetensors", tensors, {}).ok());
}

TEST(CutFused, StacksAreCutAndPutTogether) {
  for (const char* name : {"olmoe_bf16", "mixtral_f32"}) {
    SCOPED_TRACE(name);
    if (!std::filesystem::exists(golden(name))) GTEST_SKIP() << "no golden checkpoint";
    TempDir out;
    write_fused(golden(name), out / "fused");
    SplitOptions split = options_for(out / "fused", out);
    split.modules = {{"one", {{-1, {1, 4}}}}};
    const auto report = split_checkpoint(split);
    ASSERT_TRUE(report.ok()) << report.status().to_string();
    const auto grafted = graft_checkpoint({split.backbone_out, report->module_dirs, out / "whole"});
    ASSERT_TRUE(grafted.ok()) << grafted.status().to_string();
    expect_same_checkpoint(out / "fused", out / "whole");
  }
}

struct BadSplit {
  const char* name;
  std::vector<SplitModule> modules;
  const char* message;
};

class BadSplits : public ::testing::TestWithParam<BadSplit> {};

TEST_P(BadSplits, AreRefusedAndLeaveNothing) {
  const std::string dir = golden("flex_olmo_f32");
  if (!std::filesystem::exists(dir)) GTEST_SKIP() << "no golden checkpoint in " << dir;
  TempDir out;
  SplitOptions split = options_for(dir, out);
  split.modules = GetParam().modules;
  const auto report = split_checkpoint(split);
  ASSERT_FALSE(report.ok());
  EXPECT_NE(report.status().message().find(GetParam().message), std::string::npos)
      << report.status().message();
  EXPECT_TRUE(out.empty());
}

INSTANTIATE_TEST_SUITE_P(
    Table, BadSplits,
    ::testing::Values(
        BadSplit{"none", {}, "found no modules"},
        BadSplit{"name", {{"Legal", {{-1, {1}}}}}, "module name \"Legal\""},
        BadSplit{"same_name", {{"a", {{-1, {1}}}}, {"a", {{-1, {2}}}}}, "module a: named twice"},
        BadSplit{"same_slot", {{"a", {{-1, {1}}}}, {"b", {{0, {1}}}}}, "found slot 1 twice"},
        BadSplit{"slot", {{"a", {{-1, {7}}}}}, "found slots [7] (expected some of 0 to 6)"},
        BadSplit{"layer", {{"a", {{3, {1}}}}}, "found layer 3 (expected 0 to 2)"},
        BadSplit{"all", {{"a", {{-1, {0, 1, 2, 3, 4, 5, 6}}}}}, "0 experts would be left"},
        BadSplit{"uneven", {{"a", {{0, {1}}}}}, "layer 1: 7 experts would be left, layer 0 6"}),
    [](const auto& test) { return std::string(test.param.name); });

TEST(CutOutputs, ExistingDirectoriesAreNeverTouched) {
  const std::string dir = golden("flex_olmo_f32");
  if (!std::filesystem::exists(dir)) GTEST_SKIP() << "no golden checkpoint in " << dir;
  TempDir out;
  SplitOptions split = options_for(dir, out);
  split.modules = {{"one", {{-1, {1}}}}};
  std::filesystem::create_directories(out / "modules/one");
  const auto report = split_checkpoint(split);
  EXPECT_EQ(report.status().code(), Code::kAlreadyExists);
  EXPECT_FALSE(std::filesystem::exists(split.backbone_out));
  EXPECT_TRUE(std::filesystem::is_empty(out / "modules/one"));
}

TEST(CutOutputs, GraftRefusesAnotherBackbone) {
  const std::string dir = golden("flex_olmo_f32");
  if (!std::filesystem::exists(dir)) GTEST_SKIP() << "no golden checkpoint in " << dir;
  TempDir out;
  SplitOptions split = options_for(dir, out);
  split.modules = {{"one", {{-1, {1}}}}};
  const auto report = split_checkpoint(split);
  ASSERT_TRUE(report.ok());
  const auto grafted = graft_checkpoint({dir, report->module_dirs, out / "whole"});
  EXPECT_EQ(grafted.status().code(), Code::kFailedPrecondition);
  EXPECT_FALSE(std::filesystem::exists(out / "whole"));
}

TEST(Seal, FillsInDigestsAndChangesNothingElse) {
  const std::string dir = golden("flex_olmo_f32");
  if (!std::filesystem::exists(dir)) GTEST_SKIP() << "no golden checkpoint in " << dir;
  TempDir out;
  SplitOptions split = options_for(dir, out);
  split.modules = {{"one", {{-1, {1}}}}};
  const auto report = split_checkpoint(split);
  ASSERT_TRUE(report.ok());
  const std::string module = report->module_dirs[0];
  const auto manifest = read_manifest(module);
  ASSERT_TRUE(manifest.ok());
  const std::string text =
      "# by hand\nchimera: module/1\nname: one\nversion: 1.0.0\n"
      "kind: weights  # plain\nattach: append\nbackbone: {fingerprint: @, "
      "hidden_size: 64}\nfiles:\n  - sha256: @   # filled\n"
      "    path: weights.safetensors\n";
  const auto fill = [&](const std::string& first, const std::string& second) {
    std::string filled = text;
    filled.replace(filled.find('@'), 1, first);
    return filled.replace(filled.find('@'), 1, second);
  };
  std::ofstream(module + "/module.yaml") << fill("''", "PENDING");
  const Status sealed = seal_module(module, split.backbone_out);
  ASSERT_TRUE(sealed.ok()) << sealed.to_string();
  EXPECT_EQ(read_text(module + "/module.yaml"),
            fill(report->fingerprint, manifest->files[0].sha256));
  EXPECT_TRUE(verify_module(module, split.backbone_out).ok());
  std::ofstream(module + "/module.yaml") << fill("", "PENDING");
  EXPECT_EQ(seal_module(module, split.backbone_out).code(), Code::kNotFound);
}

}  // namespace
}  // namespace chimera
