// split and graft: what is cut apart and put together again is the same, tensor by tensor.
#include "experts/offline/cut.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <functional>
#include <sstream>

#include "backbone/checkpoint/checkpoint.h"
#include "backbone/families/model_config.h"
#include "base/json/testing.h"
#include "experts/module/base_tensors.h"
#include "experts/offline/cut_output.h"
#include "experts/offline/module_report.h"

namespace chimera {
namespace {

/// Of the shared set, or of the project's own.
std::string golden(const std::string& name) {
  std::string own = CHIMERA_SOURCE_DIR "/tests/golden/families/" + name;
  if (std::filesystem::exists(own)) return own;
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
  EXPECT_EQ(json_of(x->config_json()), json_of(y->config_json()));
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
  SplitModule mixed{"mixed", {}};
  int64_t first = 0;
  for (const int64_t layer : moe_layers(*config)) {
    mixed.slots[layer] = {first, last - first};
    first = last - first;
  }
  const std::vector<std::vector<SplitModule>> cuts = {
      {{"tail", {{-1, {last}}}}},
      {{"one", {{-1, {1}}}}, {"two", {{-1, {3, 0}}}}},
      {mixed},
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
  const auto checkpoint = Checkpoint::open(dir_, Residency::kMapped);
  ASSERT_TRUE(checkpoint.ok());
  const auto config = parse_model_config(checkpoint->config_json(), "config.json");
  ASSERT_TRUE(config.ok());
  split.modules = {{"swap", {{moe_layers(*config).back(), {3, 0}}}}};
  const auto report = split_checkpoint(split);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  expect_same_checkpoint(dir_, split.backbone_out);
  const auto grafted = graft_checkpoint({split.backbone_out, report->module_dirs, out / "whole"});
  ASSERT_TRUE(grafted.ok()) << grafted.status().to_string();
  expect_same_checkpoint(dir_, out / "whole");
}

INSTANTIATE_TEST_SUITE_P(
    Golden, Cut,
    ::testing::Values("flex_olmo_f32", "flex_olmo_bf16", "olmoe_f32", "mixtral_f32", "mixtral_bf16",
                      "qwen3_moe_bf16", "qwen3_moe_v5_fused_bf16", "deepseek_v3_f32",
                      "deepseek_v3_fp8", "llama4_text_bf16", "llama4_composite_bf16", "gpt_oss",
                      "gpt_oss_mxfp4", "qwen2_moe", "deepseek_v3_grouped", "deepseek_v2_grouped"),
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
    for (const StoredExpert& expert : base->experts) {
      for (size_t i = 0; i < 3; ++i) {
        auto& stack = i == 2 ? *down : *gate_up;
        const TensorView view = dense(expert[i].weight, "");
        stack.insert(stack.end(), view.bytes.begin(), view.bytes.end());
      }
    }
    const DType dtype = base->experts[0][0].weight.tensor.dtype;
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

/// `from` with `edit` applied to the bytes of every tensor (by name, on a copy).
void write_edited(const std::string& from, const std::string& to,
                  const std::function<void(const TensorView&, std::span<std::byte>)>& edit) {
  const auto checkpoint = Checkpoint::open(from, Residency::kMapped);
  ASSERT_TRUE(checkpoint.ok());
  std::vector<TensorView> tensors;
  for (const std::string& name : checkpoint->names()) {
    TensorView view = *checkpoint->find(name);
    auto copy = std::make_shared<std::vector<std::byte>>(view.bytes.begin(), view.bytes.end());
    edit(view, *copy);
    view.bytes = *copy;
    view.owner = copy;
    tensors.push_back(std::move(view));
  }
  std::filesystem::create_directory(to);
  std::filesystem::copy_file(from + "/config.json", to + "/config.json");
  ASSERT_TRUE(write_safetensors(to + "/model.safetensors", tensors, {}).ok());
}

/// Changes the lowest bit of the last element.
void nudge(std::span<std::byte> bytes, DType dtype) {
  const size_t width = static_cast<size_t>(dtype_bits(dtype) / 8);
  bytes[bytes.size() - width] ^= std::byte{1};
}

class Difference : public ::testing::TestWithParam<std::tuple<const char*, const char*>> {
 protected:
  void SetUp() override {
    dir_ = golden(std::get<0>(GetParam()));
    if (!std::filesystem::exists(dir_)) GTEST_SKIP() << "no golden checkpoint in " << dir_;
  }
  std::string dir_;
};

// What the fine-tune changed is the module, and grafted onto the parent it is the fine-tune.
TEST_P(Difference, BecomesAReplacingModule) {
  TempDir out;
  const std::string changed = std::get<1>(GetParam());
  write_edited(dir_, out / "tuned", [&](const TensorView& tensor, std::span<std::byte> bytes) {
    if (tensor.name.ends_with(changed)) nudge(bytes, tensor.dtype);
  });
  SplitOptions split;
  split.checkpoint_dir = out / "tuned";
  split.parent_dir = dir_;
  split.modules_out = out / "modules";
  split.modules = {{"tuned", {}}};
  const auto report = split_checkpoint(split);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  const auto manifest = read_manifest(report->module_dirs[0]);
  ASSERT_TRUE(manifest.ok());
  EXPECT_EQ(manifest->attach, Attach::kReplace);
  EXPECT_TRUE(verify_module(report->module_dirs[0], dir_).ok());
  const auto grafted = graft_checkpoint({dir_, report->module_dirs, out / "whole"});
  ASSERT_TRUE(grafted.ok()) << grafted.status().to_string();
  expect_same_checkpoint(out / "tuned", out / "whole");
}

INSTANTIATE_TEST_SUITE_P(
    Golden, Difference,
    ::testing::Values(std::tuple("olmoe_bf16", "layers.1.mlp.experts.3.up_proj.weight"),
                      std::tuple("mixtral_f32",
                                 "block_sparse_moe.gate.weight"),  // a gate row alone
                      std::tuple("qwen3_moe_v5_fused_bf16", "layers.2.mlp.experts.down_proj"),
                      std::tuple("deepseek_v3_f32", "e_score_correction_bias"),
                      std::tuple("deepseek_v3_fp8", "experts.2.gate_proj.weight_scale_inv"),
                      std::tuple("llama4_text_bf16", "experts.gate_up_proj"),
                      std::tuple("gpt_oss", "experts.down_proj_bias"),
                      std::tuple("gpt_oss", "router.bias"),
                      std::tuple("gpt_oss_mxfp4", "experts.gate_up_proj_blocks"),
                      std::tuple("llama_biases", "layers.1.mlp.up_proj.bias")),
    [](const auto& test) {
      std::string name = std::get<0>(test.param) + std::string("_") + std::get<1>(test.param);
      std::replace(name.begin(), name.end(), '.', '_');
      return name;
    });

struct BadDifference {
  const char* changed;  // tensor of the fine-tune
  std::vector<SplitModule> modules;
  const char* message;
};

TEST(Differences, ThatNoModuleCanHoldAreRefused) {
  const std::string dir = golden("olmoe_bf16");
  if (!std::filesystem::exists(dir)) GTEST_SKIP() << "no golden checkpoint in " << dir;
  const std::vector<BadDifference> table = {
      {"", {{"a", {}}}, "found the very experts of"},
      {"layers.0.self_attn.q_proj.weight", {{"a", {}}}, "1 tensors outside the experts"},
      {"layers.1.mlp.experts.3.up_proj.weight", {{"a", {{0, {3}}}}}, "found no changed expert"},
      {"experts.3.up_proj.weight", {{"a", {{0, {3}}}}}, "found 2 changed experts in no module"},
      {"experts.3.up_proj.weight", {{"a", {}}, {"b", {{0, {1}}}}}, "found no slots beside other"},
  };
  for (const BadDifference& bad : table) {
    SCOPED_TRACE(bad.message);
    TempDir out;
    write_edited(dir, out / "tuned", [&](const TensorView& tensor, std::span<std::byte> bytes) {
      if (*bad.changed != 0 && tensor.name.ends_with(bad.changed)) nudge(bytes, tensor.dtype);
    });
    SplitOptions split;
    split.checkpoint_dir = out / "tuned";
    split.parent_dir = dir;
    split.modules_out = out / "modules";
    split.modules = bad.modules;
    const auto report = split_checkpoint(split);
    ASSERT_FALSE(report.ok());
    EXPECT_NE(report.status().message().find(bad.message), std::string::npos)
        << report.status().message();
    EXPECT_FALSE(std::filesystem::exists(split.modules_out));
  }
}

// A checkpoint that has more experts than its parent: FlexOlmo's way to grow.
TEST(Differences, MoreExpertsBecomeAnAppendingModule) {
  const std::string dir = golden("flex_olmo_bf16");
  if (!std::filesystem::exists(dir)) GTEST_SKIP() << "no golden checkpoint in " << dir;
  TempDir out;
  SplitOptions cut = options_for(dir, out);
  cut.modules = {{"tail", {{-1, {5, 6}}}}};
  const auto report = split_checkpoint(cut);  // the public part
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  SplitOptions split;
  split.checkpoint_dir = dir;
  split.parent_dir = cut.backbone_out;
  split.modules_out = out / "grown";
  split.modules = {{"math", {{-1, {5}}}}, {"code", {{-1, {6}}}}};
  const auto grown = split_checkpoint(split);
  ASSERT_TRUE(grown.ok()) << grown.status().to_string();
  EXPECT_EQ(grown->fingerprint, report->fingerprint);
  const auto whole = graft_checkpoint({cut.backbone_out, grown->module_dirs, out / "whole"});
  ASSERT_TRUE(whole.ok()) << whole.status().to_string();
  expect_same_checkpoint(dir, out / "whole");
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
  const auto sealed = seal_module(module, split.backbone_out);
  ASSERT_TRUE(sealed.ok()) << sealed.status().to_string();
  EXPECT_EQ(read_text(module + "/module.yaml"),
            fill(report->fingerprint, manifest->files[0].sha256));
  EXPECT_TRUE(verify_module(module, split.backbone_out).ok());
  std::ofstream(module + "/module.yaml") << fill("", "PENDING");
  EXPECT_EQ(seal_module(module, split.backbone_out).status().code(), Code::kNotFound);
}

TEST(Seal, LeavesABrokenModuleAsItIs) {
  const std::string dir = golden("flex_olmo_f32");
  if (!std::filesystem::exists(dir)) GTEST_SKIP() << "no golden checkpoint in " << dir;
  TempDir out;
  SplitOptions split = options_for(dir, out);
  split.modules = {{"one", {{-1, {1}}}}};
  const auto report = split_checkpoint(split);
  ASSERT_TRUE(report.ok());
  const std::string module = report->module_dirs[0];
  const std::string weights = module + "/weights.safetensors";
  const std::string manifest = read_text(module + "/module.yaml");
  const std::string whole = read_text(weights);
  std::string nan = whole;
  nan.replace(nan.size() - 4, 4, "\xff\xff\xff\xff");
  for (const std::string& broken : {whole.substr(0, whole.size() - 4), nan, std::string("GGUF")}) {
    std::ofstream(weights, std::ios::binary) << broken;
    EXPECT_FALSE(seal_module(module, split.backbone_out).ok());
    EXPECT_EQ(read_text(module + "/module.yaml"), manifest);
  }
}

TEST(Split, KeepsTheCheckpointsTopKWhateverIsLeft) {
  const std::string dir = golden("flex_olmo_f32");
  if (!std::filesystem::exists(dir)) GTEST_SKIP() << "no golden checkpoint in " << dir;
  TempDir out;
  SplitOptions split = options_for(dir, out);
  split.modules = {{"most", {{-1, {0, 1, 2, 3, 4, 5}}}}};  // of 7, and 5 per token
  const auto report = split_checkpoint(split);
  ASSERT_TRUE(report.ok()) << report.status().to_string();
  const auto backbone = Checkpoint::open(split.backbone_out, Residency::kMapped);
  ASSERT_TRUE(backbone.ok());
  const auto config = parse_model_config(backbone->config_json(), "config.json");
  ASSERT_TRUE(config.ok()) << config.status().to_string();
  EXPECT_EQ(config->num_experts, 1);
  EXPECT_EQ(config->num_experts_per_tok, 5);
  EXPECT_EQ(read_manifest(report->module_dirs[0])->top_k, 5);
  const auto whole = graft_checkpoint({split.backbone_out, report->module_dirs, out / "whole"});
  ASSERT_TRUE(whole.ok()) << whole.status().to_string();
  expect_same_checkpoint(dir, out / "whole");
}

TEST(Split, ThatFailsAtItsEndLeavesNothing) {
  const std::string dir = golden("flex_olmo_f32");
  if (!std::filesystem::exists(dir)) GTEST_SKIP() << "no golden checkpoint in " << dir;
  TempDir out;
  SplitOptions split = options_for(dir, out);
  split.modules_out = out / "new/modules";
  split.modules = {{"one", {{-1, {1}}}}, {"two", {{-1, {2}}}}};
  // The second module cannot be written: something else has its name. Everything before it could.
  std::filesystem::create_directories(out / "new/modules/two.partial");
  EXPECT_EQ(split_checkpoint(split).status().code(), Code::kAlreadyExists);
  EXPECT_FALSE(std::filesystem::exists(out / "backbone"));
  EXPECT_FALSE(std::filesystem::exists(out / "new/modules/one"));
  std::filesystem::remove_all(out / "new");
  EXPECT_TRUE(out.empty());

  OutputSet outputs;
  const auto first = outputs.create(out / "a/b/first");
  const auto second = outputs.create(out / "second");
  ASSERT_TRUE(first.ok() && second.ok());
  std::filesystem::create_directories(out / "second/occupied");  // its rename will fail
  EXPECT_FALSE(outputs.commit().ok());
  EXPECT_FALSE(std::filesystem::exists(out / "a/b/first"));
}

TEST(Split, RefusesACheckpointThatTheDaemonWouldRefuse) {
  const std::string dir = golden("flex_olmo_f32");
  if (!std::filesystem::exists(dir)) GTEST_SKIP() << "no golden checkpoint in " << dir;
  TempDir out;
  const auto whole = Checkpoint::open(dir, Residency::kMapped);
  ASSERT_TRUE(whole.ok());
  std::vector<TensorView> tensors;
  for (const std::string& name : whole->names()) {
    if (name != "model.layers.0.self_attn.o_proj.weight") tensors.push_back(*whole->find(name));
  }
  const std::string broken = out / "broken";
  std::filesystem::create_directory(broken);
  std::filesystem::copy(dir + "/config.json", broken);
  ASSERT_TRUE(write_safetensors(broken + "/model.safetensors", tensors, {}).ok());
  SplitOptions split = options_for(broken, out);
  split.modules = {{"one", {{-1, {1}}}}};
  const auto report = split_checkpoint(split);
  EXPECT_EQ(report.status().code(), Code::kNotFound) << report.status().to_string();
  EXPECT_FALSE(std::filesystem::exists(split.backbone_out));
}

}  // namespace
}  // namespace chimera
