// Loading modules: the good, and a table of the bad with what the error must name.
#include "experts/kinds/module.h"

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <functional>
#include <limits>
#include <random>

#include "backbone/checkpoint/safetensors.h"
#include "base/io/digest.h"
#include "experts/kinds/load.h"
#include "experts/kinds/size.h"
#include "experts/kinds/testing.h"

namespace chimera {
namespace {

constexpr int64_t kHidden = 16;
constexpr int64_t kWidth = 12;
const std::string kFingerprint = "sha256:" + std::string(64, 'b');

BackboneInfo backbone_of(Precision precision) {
  BackboneInfo backbone;
  backbone.config.hidden_size = kHidden;
  backbone.config.intermediate_size = kWidth;
  backbone.config.num_layers = 2;
  backbone.config.num_experts = 4;
  backbone.fingerprint = kFingerprint;
  backbone.precision = precision;
  return backbone;
}

/// A module directory under construction; write() makes it.
struct Draft {
  Manifest manifest;
  std::vector<TensorView> tensors;
  std::string dir;

  explicit Draft(Attach attach = Attach::kAppend, const std::vector<int64_t>& experts = {0, 1}) {
    std::string pattern = (std::filesystem::temp_directory_path() / "chimera-XXXXXX").string();
    dir = ::mkdtemp(pattern.data());
    manifest.name = "legal";
    manifest.version = "1.0.0";
    manifest.attach = attach;
    manifest.backbone_fingerprint = kFingerprint;
    manifest.hidden_size = kHidden;
    for (int64_t layer = 0; layer < 2; ++layer) {
      if (attach == Attach::kAppend) {
        add(fmt::format("layers.{}.gate.weight", layer),
            {static_cast<int64_t>(experts.size()), kHidden});
      }
      for (const int64_t e : experts) add_expert(layer, e);
    }
  }
  ~Draft() { std::filesystem::remove_all(dir); }
  Draft(const Draft&) = delete;
  Draft& operator=(const Draft&) = delete;

  void add_expert(int64_t layer, int64_t e) {
    const std::string prefix = fmt::format("layers.{}.experts.{}.", layer, e);
    add(prefix + "gate_proj.weight", {kWidth, kHidden});
    add(prefix + "up_proj.weight", {kWidth, kHidden});
    add(prefix + "down_proj.weight", {kHidden, kWidth});
  }

  void add(const std::string& name, std::vector<int64_t> shape) {
    TensorView view;
    view.name = name;
    view.shape = std::move(shape);
    std::mt19937 rng(static_cast<uint32_t>(tensors.size()) + 1);
    std::normal_distribution<float> normal(0.0f, 0.5f);
    auto values = std::make_shared<std::vector<float>>(static_cast<size_t>(view.elements()));
    for (float& v : *values) v = normal(rng);
    view.bytes = std::as_bytes(std::span(*values));
    view.owner = values;
    tensors.push_back(std::move(view));
  }

  /// Rounds the experts to two bytes.
  void halve() {
    for (TensorView& t : tensors) {
      if (t.name.find(".experts.") == std::string::npos) continue;
      const auto* from = reinterpret_cast<const float*>(t.bytes.data());
      auto halves = std::make_shared<std::vector<uint16_t>>();
      for (int64_t i = 0; i < t.elements(); ++i) halves->push_back(f32_to_f16(from[i]));
      t.dtype = DType::kF16;
      t.bytes = std::as_bytes(std::span(*halves));
      t.owner = halves;
    }
  }

  TensorView& tensor(const std::string& name) {
    for (TensorView& t : tensors) {
      if (t.name == name) return t;
    }
    ADD_FAILURE() << name;
    return tensors.front();
  }
  void remove(const std::string& name) {
    std::erase_if(tensors, [&](const TensorView& t) { return t.name == name; });
  }
  float* values(const std::string& name) {
    return reinterpret_cast<float*>(const_cast<std::byte*>(tensor(name).bytes.data()));
  }

  void write() {
    const std::string weights = dir + "/weights.safetensors";
    ASSERT_TRUE(write_safetensors(weights, tensors, {}).ok());
    if (manifest.files.empty()) {
      manifest.files.push_back({"weights.safetensors", *sha256_of_file(weights)});
    }
    std::ofstream(dir + "/module.yaml") << manifest_yaml(manifest);
  }

  Result<std::shared_ptr<const Module>> load() const {
    return load_module(dir, backbone_of(Precision::kF32));
  }
};

/// down(silu(gate x) * up x) in double.
std::vector<double> reference(Draft& draft, const std::string& prefix,
                              const std::vector<float>& x) {
  const float* gate = draft.values(prefix + "gate_proj.weight");
  const float* up = draft.values(prefix + "up_proj.weight");
  const float* down = draft.values(prefix + "down_proj.weight");
  std::vector<double> inner(kWidth);
  for (size_t w = 0; w < kWidth; ++w) {
    double g = 0.0;
    double u = 0.0;
    for (size_t i = 0; i < kHidden; ++i) {
      g += double{gate[w * kHidden + i]} * double{x[i]};
      u += double{up[w * kHidden + i]} * double{x[i]};
    }
    inner[w] = g / (1.0 + std::exp(-g)) * u;
  }
  std::vector<double> y(kHidden, 0.0);
  for (size_t i = 0; i < kHidden; ++i) {
    for (size_t w = 0; w < kWidth; ++w) y[i] += double{down[i * kWidth + w]} * inner[w];
  }
  return y;
}

/// What is told of the size of a module whose experts have numbers of `bytes` bytes.
void expect_known_size(Draft& draft, int64_t bytes) {
  draft.add("layers.1.gate.bias", {2});
  draft.write();
  const uint64_t file = std::filesystem::file_size(draft.dir + "/weights.safetensors");
  for (const Precision precision :
       {Precision::kF32, Precision::kBF16, Precision::kQ8, Precision::kQ4}) {
    SCOPED_TRACE(kPrecisionNames.name(precision));
    const BackboneInfo backbone = backbone_of(precision);
    const auto size = module_size(draft.dir, *read_manifest(draft.dir), backbone);
    ASSERT_TRUE(size.ok()) << size.status().to_string();
    const auto module = load_module(draft.dir, backbone);
    ASSERT_TRUE(module.ok()) << module.status().to_string();
    const uint64_t found = (*module)->resident_bytes();
    // Weights that are used in place keep their file, and that has a header and gate rows.
    const auto weights = static_cast<uint64_t>(4 * 3 * kWidth * kHidden * bytes);
    const uint64_t beside = precision == Precision::kF32 ? file - weights : 0;
    EXPECT_GE(size->resident, found);
    EXPECT_LE(size->resident, found + beside);
    EXPECT_GE(size->loading, size->resident);
    EXPECT_LE(size->loading, size->resident + file);
  }
  std::filesystem::remove(draft.dir + "/weights.safetensors");
  EXPECT_FALSE(
      module_size(draft.dir, *read_manifest(draft.dir), backbone_of(Precision::kF32)).ok());
}

TEST(Module, ItsSizeIsKnownBeforeAWeightIsRead) {
  Draft draft;
  expect_known_size(draft, 4);
}

TEST(Module, HalfPrecisionStaysSoUnlessItIsRounded) {
  Draft draft;
  draft.halve();
  expect_known_size(draft, 2);
}

std::vector<std::vector<float>> outputs_of(const Module& module) {
  return expert_outputs(module, kHidden);
}

TEST(Module, ItsPrecisionIsTheCompositionsElseItsOwnElseTheDeployments) {
  Draft draft;
  draft.write();
  const auto of = [&](Precision deployment, std::optional<Precision> asked) {
    auto module =
        load_module(draft.dir, backbone_of(deployment), {.lambda = {}, .precision = asked});
    EXPECT_TRUE(module.ok()) << module.status().to_string();
    EXPECT_EQ((*module)->asked_precision, asked);
    return *module;
  };
  const auto wide = of(Precision::kF32, std::nullopt);
  const auto packed = of(Precision::kQ8, std::nullopt);
  const auto asked = of(Precision::kF32, Precision::kQ8);
  EXPECT_EQ(asked->precision, Precision::kQ8);
  EXPECT_EQ(outputs_of(*asked), outputs_of(*packed));  // to the bit
  EXPECT_NE(outputs_of(*asked), outputs_of(*wide));
  EXPECT_EQ(asked->resident_bytes(), packed->resident_bytes());
  EXPECT_EQ(outputs_of(*of(Precision::kQ8, Precision::kF32)), outputs_of(*wide));

  draft.manifest.precision = Precision::kQ8;
  draft.write();
  EXPECT_EQ(outputs_of(*of(Precision::kF32, std::nullopt)), outputs_of(*packed));
  EXPECT_EQ(of(Precision::kF32, std::nullopt)->precision, Precision::kQ8);
  EXPECT_EQ(outputs_of(*of(Precision::kQ4, Precision::kF32)), outputs_of(*wide));
}

TEST(Module, APrecisionIsRefusedWhereThereAreNoWeightsForIt) {
  Manifest manifest;
  manifest.name = "finance";
  for (const ModuleKind kind : {ModuleKind::kLibrary, ModuleKind::kLora}) {
    manifest.kind = kind;
    const auto refused = with_precision(backbone_of(Precision::kF32), manifest, Precision::kQ8);
    EXPECT_EQ(refused.status().code(), Code::kFailedPrecondition);
    EXPECT_NE(refused.status().message().find("module finance: precision: found q8"),
              std::string::npos)
        << refused.status().to_string();
    EXPECT_TRUE(with_precision(backbone_of(Precision::kF32), manifest, std::nullopt).ok());
  }
}

TEST(Module, LoadsAppendAndComputes) {
  Draft draft;
  draft.add("layers.1.gate.bias", {2});
  draft.write();
  const auto module = draft.load();
  ASSERT_TRUE(module.ok()) << module.status().to_string();
  EXPECT_EQ((*module)->name(), "legal");
  EXPECT_EQ((*module)->expert_count(), 4);
  EXPECT_GE((*module)->resident_bytes(), 4u * 3 * kWidth * kHidden * 4);
  const ModuleLayer& layer = (*module)->layers.at(1);
  EXPECT_TRUE(layer.slots.empty());
  ASSERT_EQ(layer.gate_weight.size(), 2u * kHidden);
  EXPECT_EQ(layer.gate_weight[20], draft.values("layers.1.gate.weight")[20]);
  EXPECT_EQ(layer.gate_bias.size(), 2u);

  std::vector<float> x(kHidden);
  for (size_t i = 0; i < x.size(); ++i) x[i] = 0.3f * static_cast<float>(i) - 2.0f;
  std::vector<float> y(kHidden);
  FloatBuffer scratch;
  ThreadPool pool(2);
  ExpertContext context{best_kernels(), pool, scratch};
  ASSERT_TRUE(layer.experts[1]->forward(x.data(), 1, y.data(), context).ok());
  const auto want = reference(draft, "layers.1.experts.1.", x);
  for (size_t i = 0; i < want.size(); ++i) EXPECT_NEAR(double{y[i]}, want[i], 1e-4);
}

TEST(Module, LoadsReplaceWithSlots) {
  Draft draft(Attach::kReplace, {1, 3});
  draft.write();
  const auto module = draft.load();
  ASSERT_TRUE(module.ok()) << module.status().to_string();
  EXPECT_EQ((*module)->layers.at(0).slots, (std::vector<int64_t>{1, 3}));
  EXPECT_TRUE((*module)->layers.at(0).gate_weight.empty());
}

TEST(Module, FileChangedAfterLoadingDoesNotMatter) {
  Draft draft;
  draft.write();
  const auto module = draft.load();
  ASSERT_TRUE(module.ok());
  std::filesystem::resize_file(draft.dir + "/weights.safetensors", 0);
  std::vector<float> x(kHidden, 1.0f);
  std::vector<float> y(kHidden);
  FloatBuffer scratch;
  ThreadPool pool(1);
  ExpertContext context{best_kernels(), pool, scratch};
  ASSERT_TRUE((*module)->layers.at(0).experts[0]->forward(x.data(), 1, y.data(), context).ok());
  EXPECT_NEAR(double{y[0]}, reference(draft, "layers.0.experts.0.", x)[0], 1e-4);
}

TEST(Module, ItsTracesEndWithIt) {
  Draft draft;
  draft.write();
  auto module = draft.load();
  ASSERT_TRUE(module.ok()) << module.status().to_string();
  const ModuleTraces where(**module);
  const Traces before = where.look();
  // The weights are used where they were read to.
  EXPECT_GE(before.mapped_bytes, 4u * 3 * kWidth * kHidden * 4);
  EXPECT_EQ(before.mapped_files, 0u);
  EXPECT_EQ(before.descriptors, 0u);
  {
    const std::ifstream open(draft.dir + "/module.yaml");
    EXPECT_EQ(where.look().descriptors, 1u);
  }
  *module = nullptr;
  const Traces after = where.look();
  EXPECT_EQ(after.mapped_bytes, 0u);
  EXPECT_EQ(after.descriptors, 0u);
}

struct Bad {
  const char* name;
  Code code;
  const char* message;
  std::function<void(Draft&)> spoil;          // before writing
  std::function<void(Draft&)> spoil_written;  // after writing
};

class BadModule : public ::testing::TestWithParam<Bad> {};

TEST_P(BadModule, IsRefusedByName) {
  Draft draft;
  if (GetParam().spoil) GetParam().spoil(draft);
  draft.write();
  if (GetParam().spoil_written) GetParam().spoil_written(draft);
  const auto module = draft.load();
  ASSERT_FALSE(module.ok());
  EXPECT_EQ(module.status().code(), GetParam().code) << module.status().to_string();
  EXPECT_NE(module.status().message().find(GetParam().message), std::string::npos)
      << module.status().message();
  EXPECT_EQ(module.status().message().find("/proc/"), std::string::npos);
}

const float kNan = std::numeric_limits<float>::quiet_NaN();
const float kInf = std::numeric_limits<float>::infinity();

const Bad kBad[] = {
    {"other_backbone",
     Code::kFailedPrecondition,
     "found backbone fingerprint sha256:ccc",
     [](Draft& d) { d.manifest.backbone_fingerprint = "sha256:" + std::string(64, 'c'); },
     {}},
    {"other_hidden_size",
     Code::kFailedPrecondition,
     "found backbone.hidden_size 32 (expected 16)",
     [](Draft& d) { d.manifest.hidden_size = 32; },
     {}},
    {"layer_beyond_the_model",
     Code::kFailedPrecondition,
     "found layer 2 in layers (expected 0 to 1)",
     [](Draft& d) {
       d.manifest.layers = {0, 2};
     },
     {}},
    {"library",
     Code::kInvalidArgument,
     "library.file: found nothing",
     [](Draft& d) { d.manifest.kind = ModuleKind::kLibrary; },
     {}},
    {"no_weights",
     Code::kInvalidArgument,
     "found no .safetensors file",
     [](Draft& d) {
       d.manifest.files = {{"README", kFingerprint}};
     },
     {}},
    {"missing_file",
     Code::kNotFound,
     "other.safetensors: found no such file",
     [](Draft& d) {
       d.manifest.files = {{"other.safetensors", kFingerprint}};
     },
     {}},
    {"wrong_digest",
     Code::kDataCorrupt,
     "weights.safetensors: found sha256:",
     [](Draft& d) {
       d.manifest.files = {{"weights.safetensors", kFingerprint}};
     },
     {}},
    {"flipped_bit",
     Code::kDataCorrupt,
     "as module.yaml says",
     {},
     [](Draft& d) {
       std::fstream file(d.dir + "/weights.safetensors",
                         std::ios::in | std::ios::out | std::ios::binary);
       file.seekg(-3, std::ios::end);
       const auto at = file.tellg();
       const int byte = file.get();
       file.seekp(at);
       file.put(static_cast<char>(byte ^ 1));
     }},
    {"truncated",
     Code::kDataCorrupt,
     "weights.safetensors",
     {},
     [](Draft& d) { std::filesystem::resize_file(d.dir + "/weights.safetensors", 100); }},
    {"link_to_weights",
     Code::kPermissionDenied,
     "weights.safetensors: found a symbolic link",
     {},
     [](Draft& d) {
       std::filesystem::rename(d.dir + "/weights.safetensors", d.dir + "/real");
       std::filesystem::create_symlink("real", d.dir + "/weights.safetensors");
     }},
    {"link_to_directory",
     Code::kPermissionDenied,
     "sub: found a symbolic link",
     [](Draft& d) {
       d.manifest.files = {{"sub/w.safetensors", kFingerprint}};
       std::filesystem::create_directory_symlink("/etc", d.dir + "/sub");
     },
     {}},
    {"directory_for_weights",
     Code::kInvalidArgument,
     "found a directory, FIFO or device",
     {},
     [](Draft& d) {
       std::filesystem::remove(d.dir + "/weights.safetensors");
       std::filesystem::create_directory(d.dir + "/weights.safetensors");
     }},
    {"changed_document",
     Code::kDataCorrupt,
     "CARD.md: found sha256:",
     [](Draft& d) {
       std::ofstream(d.dir + "/CARD.md") << "text";
       d.manifest.files = {{"CARD.md", kFingerprint}, {"weights.safetensors", kFingerprint}};
     },
     {}},
    {"unknown_tensor",
     Code::kInvalidArgument,
     "found the tensor layers.0.router.weight (expected",
     [](Draft& d) { d.add("layers.0.router.weight", {2}); },
     {}},
    {"hugging_face_names",
     Code::kInvalidArgument,
     "found the tensor model.layers.0.mlp.experts.0",
     [](Draft& d) { d.add("model.layers.0.mlp.experts.0.gate_proj.weight", {2}); },
     {}},
    {"signed_layer",
     Code::kInvalidArgument,
     "found the tensor layers.-1.gate.weight",
     [](Draft& d) { d.add("layers.-1.gate.weight", {2}); },
     {}},
    {"leading_zero",
     Code::kInvalidArgument,
     "found the tensor layers.00.gate.weight",
     [](Draft& d) { d.add("layers.00.gate.weight", {2}); },
     {}},
    {"extra_layer",
     Code::kInvalidArgument,
     "found tensors of layer 7 (expected layers 0 to 1)",
     [](Draft& d) { d.add_expert(7, 0); },
     {}},
    {"unlisted_layer",
     Code::kInvalidArgument,
     "found tensors of layer 0 (expected layers 1)",
     [](Draft& d) { d.manifest.layers = {1}; },
     {}},
    {"missing_layer",
     Code::kInvalidArgument,
     "found no tensors of layer 1",
     [](Draft& d) {
       std::erase_if(d.tensors,
                     [](const TensorView& t) { return t.name.starts_with("layers.1."); });
     },
     {}},
    {"missing_projection",
     Code::kInvalidArgument,
     "found no tensor layers.1.experts.0.up_proj.weight",
     [](Draft& d) { d.remove("layers.1.experts.0.up_proj.weight"); },
     {}},
    {"missing_gate",
     Code::kInvalidArgument,
     "found no tensor layers.0.gate.weight",
     [](Draft& d) { d.remove("layers.0.gate.weight"); },
     {}},
    {"hole_in_numbers",
     Code::kInvalidArgument,
     "layer 0: found expert 3 among 3 experts",
     [](Draft& d) { d.add_expert(0, 3); },
     {}},
    {"slot_beyond_the_model",
     Code::kFailedPrecondition,
     "layer 0: found slot 4 (expected 0 to 3)",
     [](Draft& d) {
       d.manifest.attach = Attach::kReplace;
       d.add_expert(0, 4);
       d.remove("layers.0.gate.weight");
     },
     {}},
    {"gate_rows",
     Code::kInvalidArgument,
     "layers.0.gate.weight: found shape [3, 16] (expected [2, 16])",
     [](Draft& d) {
       d.remove("layers.0.gate.weight");
       d.add("layers.0.gate.weight", {3, kHidden});
     },
     {}},
    {"gate_bias",
     Code::kInvalidArgument,
     "layers.0.gate.bias: found shape [1] (expected [2])",
     [](Draft& d) { d.add("layers.0.gate.bias", {1}); },
     {}},
    {"transposed_down",
     Code::kInvalidArgument,
     "down_proj.weight: found shape [12, 16] (expected [16, 12])",
     [](Draft& d) {
       d.remove("layers.0.experts.0.down_proj.weight");
       d.add("layers.0.experts.0.down_proj.weight", {kWidth, kHidden});
     },
     {}},
    {"rank_one",
     Code::kInvalidArgument,
     "gate_proj.weight: found shape [192] (expected [width, 16])",
     [](Draft& d) { d.tensor("layers.0.experts.0.gate_proj.weight").shape = {kWidth * kHidden}; },
     {}},
    {"no_width",
     Code::kInvalidArgument,
     "found shape [0, 16]",
     [](Draft& d) {
       TensorView& t = d.tensor("layers.0.experts.0.gate_proj.weight");
       t.shape = {0, kHidden};
       t.bytes = {};
     },
     {}},
    {"integers",
     Code::kUnimplemented,
     "up_proj.weight: found dtype I32 (expected F32, F16 or BF16)",
     [](Draft& d) { d.tensor("layers.0.experts.0.up_proj.weight").dtype = DType::kI32; },
     {}},
    {"nan",
     Code::kDataCorrupt,
     "tensor layers.1.experts.1.up_proj.weight: found NaN or infinity at element 17",
     [](Draft& d) { d.values("layers.1.experts.1.up_proj.weight")[17] = kNan; },
     {}},
    {"infinity",
     Code::kDataCorrupt,
     "tensor layers.0.gate.weight: found NaN or infinity at element 31",
     [](Draft& d) { d.values("layers.0.gate.weight")[31] = -kInf; },
     {}},
};

INSTANTIATE_TEST_SUITE_P(Table, BadModule, ::testing::ValuesIn(kBad),
                         [](const auto& test) { return std::string(test.param.name); });

}  // namespace
}  // namespace chimera
