// Runs the golden checkpoints through backbone and router, shared by the tests of this room.
//
// Thread safety: none; by the thread of its test.
#pragma once

#include <gtest/gtest.h>

#include <cstring>
#include <filesystem>
#include <string>
#include <vector>

#include "backbone/backbone.h"
#include "backbone/checkpoint/fingerprint.h"
#include "backbone/checkpoint/safetensors.h"
#include "experts/kinds/load.h"
#include "experts/kinds/weights.h"
#include "router/moe.h"

namespace chimera::testing {

inline std::string golden_dir() { return CHIMERA_SOURCE_DIR "/../shared/golden/open/models"; }

/// Tiny checkpoints of further options, in the project itself.
inline std::string own_golden_dir() { return CHIMERA_SOURCE_DIR "/tests/golden/families"; }

/// A directory of the test's own, removed at the end.
class TempDir {
 public:
  TempDir() {
    std::string pattern = (std::filesystem::temp_directory_path() / "chimera-XXXXXX").string();
    path_ = ::mkdtemp(pattern.data());
  }
  ~TempDir() { std::filesystem::remove_all(path_); }
  std::string operator/(const std::string& name) const { return path_ + "/" + name; }

 private:
  std::string path_;
};

/// A checkpoint with its own experts, ready to take modules.
struct LoadedModel {
  ModelConfig config;
  Precision precision = Precision::kF32;
  std::string fingerprint;
  std::shared_ptr<const Backbone> backbone;
  std::shared_ptr<const Module> base;
  std::shared_ptr<const BackboneSource> source;

  static Result<LoadedModel> load(const std::string& dir, Precision precision) {
    Result<Checkpoint> checkpoint = Checkpoint::open(dir, Residency::kCopied);
    if (!checkpoint.ok()) return checkpoint.status();
    LoadedModel model;
    model.precision = precision;
    Result<ModelConfig> config =
        parse_model_config(checkpoint->config_json(), dir + "/config.json");
    if (!config.ok()) return config.status();
    model.config = *config;
    Result<std::string> fingerprint = backbone_fingerprint(*checkpoint, "");
    if (!fingerprint.ok()) return fingerprint.status();
    model.fingerprint = *fingerprint;
    auto backbone = Backbone::load(*checkpoint, precision);
    if (!backbone.ok()) return backbone.status();
    model.backbone = *backbone;
    model.source = std::make_shared<const BackboneSource>(model.backbone, *checkpoint);
    auto base = load_base_experts(*checkpoint, model.config, precision);
    if (!base.ok()) return base.status();
    model.base = *base;
    return model;
  }

  /// Loads `dirs` as modules, all enabled, and compiles the table.
  Result<std::shared_ptr<const RoutingTable>> compose(const std::vector<std::string>& dirs,
                                                      std::optional<int64_t> top_k = {}) const {
    Composition composition;
    composition.backbone_fingerprint = fingerprint;
    composition.top_k = top_k;
    std::vector<std::shared_ptr<const Module>> modules;
    for (const std::string& dir : dirs) {
      BackboneInfo info{config, fingerprint, precision};
      info.source = source;
      auto module = load_module(dir, info);
      if (!module.ok()) return module.status();
      composition.modules.push_back(
          {(*module)->name(), "1.0.0", (*module)->manifest.digest, dir, true, 0.0f});
      modules.push_back(*module);
    }
    return RoutingTableBuilder(config, base).build(1, composition, modules);
  }

  /// Logits of all positions [tokens, vocab]; empty after a failure.
  std::vector<float> logits(const std::shared_ptr<const RoutingTable>& table,
                            const ModuleMask& mask, const std::vector<int32_t>& tokens,
                            RoutingTrace* trace = nullptr) const {
    auto cache = KvCache::create(config, {.block_tokens = 16, .blocks = 16, .prefix_cache = false});
    auto view = make_route_view(table, mask, {});
    if (!cache.ok() || !view.ok()) return {};
    KvSequence kv(cache->get());
    if (!kv.reserve(static_cast<int64_t>(tokens.size())).ok()) return {};
    ThreadPool pool(1);
    MoeRouter router(config, best_kernels(), pool);
    Workspace ws;
    BatchSegment segment{tokens, 0, &kv, BatchSegment::Logits::kAll, (*view)->backbone_adapters};
    RoutedSegment routed;
    routed.view = view->get();
    routed.rows = static_cast<int64_t>(tokens.size());
    routed.trace = trace;
    router.begin_pass({&routed, 1}, nullptr);
    const Status there = (*view)->active->wait();
    EXPECT_TRUE(there.ok()) << there.to_string();
    if (!there.ok()) return {};
    const Backbone& used = (*view)->active->backbone_or(*backbone);
    const Status status = used.forward({&segment, 1}, router, best_kernels(), pool, ws);
    EXPECT_TRUE(status.ok()) << status.to_string();
    EXPECT_FALSE(routed.poisoned);
    if (!status.ok()) return {};
    ws.logits.resize(tokens.size() * static_cast<size_t>(config.vocab_size));
    return {ws.logits.begin(), ws.logits.end()};
  }
};

/// Values of one tensor of golden.safetensors.
template <class T>
std::vector<T> golden_values(const SafetensorsFile& file, const std::string& name) {
  const TensorView* tensor = file.find(name);
  if (tensor == nullptr) return {};
  std::vector<T> values(static_cast<size_t>(tensor->elements()));
  std::memcpy(values.data(), tensor->bytes.data(), tensor->bytes.size());
  return values;
}

inline std::vector<int32_t> golden_tokens(const SafetensorsFile& file, int prompt) {
  const auto ids = golden_values<int64_t>(file, "prompt." + std::to_string(prompt) + ".input_ids");
  return {ids.begin(), ids.end()};
}

}  // namespace chimera::testing
