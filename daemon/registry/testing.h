// For tests of registry and watcher: a golden checkpoint cut on disk into a backbone directory and
// the modules legal, bio and finance, and a daemon's inside (store, registry, engine) over it.
//
// Thread safety: none; by the thread of its test.
#pragma once

#include <dirent.h>
#include <stdlib.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <fstream>
#include <memory>
#include <optional>
#include <set>
#include <string>
#include <thread>
#include <vector>

#include "base/io/digest.h"
#include "base/threads/mutex.h"
#include "daemon/engine/testing.h"
#include "daemon/model/loaded_backbone.h"
#include "daemon/registry/first_epoch.h"
#include "daemon/registry/module_loader.h"
#include "daemon/registry/registry.h"
#include "experts/offline/cut.h"

namespace chimera::testing_support {

namespace fs = std::filesystem;

/// A directory that goes with the object.
struct TempDir {
  TempDir() : path((fs::temp_directory_path() / "chimera-test-XXXXXX").string()) {
    if (mkdtemp(path.data()) == nullptr) throw std::runtime_error("mkdtemp");
  }
  ~TempDir() { fs::remove_all(path); }
  TempDir(const TempDir&) = delete;
  TempDir& operator=(const TempDir&) = delete;
  std::string path;
};

inline std::string slurp(const std::string& path) {
  std::ifstream in(path, std::ios::binary);
  return {std::istreambuf_iterator<char>(in), {}};
}
inline void spill(const std::string& path, const std::string& contents) {
  std::ofstream(path, std::ios::binary | std::ios::trunc) << contents;
}
/// Replaces the first `from` in a file; a failed test when it is not there.
inline void edit(const std::string& path, const std::string& from, const std::string& to) {
  std::string text = slurp(path);
  const size_t at = text.find(from);
  ASSERT_NE(at, std::string::npos) << from << " not in " << path;
  text.replace(at, from.size(), to);
  spill(path, text);
}
/// Puts the digest of the changed weights into module.yaml.
inline void reseal(const std::string& dir, const std::string& old_digest) {
  edit(dir + "/module.yaml", old_digest, must(sha256_of_file(dir + "/weights.safetensors")));
}

/// The cut checkpoint, made once per test program.
class Fixture {
 public:
  static const Fixture& get() {
    static const Fixture fixture;
    return fixture;
  }
  std::string backbone() const { return dir_.path + "/backbone"; }
  std::string module(const std::string& name) const { return dir_.path + "/modules/" + name; }
  /// The backbone as a daemon loads it.
  const LoadedBackbone& loaded() const { return loaded_; }

 private:
  Fixture() {
    SplitOptions split;
    split.checkpoint_dir = kGolden + "/models/flex_olmo_f32";
    split.backbone_out = backbone();
    split.modules_out = dir_.path + "/modules";
    split.modules = {{"legal", {{-1, {4}}}}, {"bio", {{-1, {5}}}}, {"finance", {{-1, {6}}}}};
    must(split_checkpoint(split));
    DeploymentConfig config;
    config.backbone.path = backbone();
    config.backbone.precision = Precision::kF32;
    loaded_ = must(load_backbone(config, ""));
  }
  TempDir dir_;
  LoadedBackbone loaded_;
};

inline CompositionSpec spec_of(const std::vector<std::string>& paths) {
  CompositionSpec spec;
  for (const std::string& path : paths) spec.modules.push_back({path, true, 0.0f});
  return spec;
}

inline LoadArgs load_of(const std::string& path) {
  LoadArgs args;
  args.path = path;
  return args;
}

/// Store, registry and engine over a state directory, as main puts them together.
class Daemon {
 public:
  struct Settings {
    CompositionSpec deployment;
    EngineOptions engine;
    std::chrono::milliseconds publish_timeout{30'000};
    std::shared_ptr<const Tokenizer> tokenizer;
    Env* env = &Env::system();
    std::string fingerprint = Fixture::get().loaded().fingerprint;
    Ledger* ledger = nullptr;
    ModuleLoader::MakeAccept accept = nullptr;
    std::optional<LoadedBackbone> model = {};  // none: the fixture's
  };
  Daemon(const std::string& state_dir, Settings settings) {
    LoadedBackbone model = settings.model.value_or(Fixture::get().loaded());
    if (!settings.model) {
      model.tokenizer = settings.tokenizer;
      model.fingerprint = settings.fingerprint;
    }
    store = must(StateStore::open(state_dir, *settings.env));
    loader = std::make_unique<ModuleLoader>(model, nullptr, settings.ledger, settings.accept);
    FirstEpoch first = must(first_epoch(loader.get(), store.get(), settings.deployment));
    engine = must(Engine::create(model.backbone, nullptr, std::move(first.table), settings.engine));
    registry = std::make_unique<Registry>(
        Registry::Options{loader.get(), store.get(), engine.get(), settings.publish_timeout},
        std::move(first));
  }
  ~Daemon() { registry->stop(); }

  uint64_t epoch() const { return engine->table()->epoch(); }
  std::string digest() const { return engine->table()->digest(); }
  /// "legal,bio" of the published table.
  std::string names() const {
    std::string out;
    for (const CompositionModule& m : engine->table()->composition().modules) {
      out += (out.empty() ? "" : ",") + m.name;
    }
    return out;
  }
  Result<ChangeReport> load(const std::string& path) const { return registry->load(load_of(path)); }
  Stream run(int32_t seed = 3, int64_t n = 12) const {
    return stream_of(submit(*engine, greedy(prompt(seed, 9), n))->done());
  }

  std::unique_ptr<StateStore> store;
  std::unique_ptr<ModuleLoader> loader;
  std::unique_ptr<Engine> engine;
  std::unique_ptr<Registry> registry;
};

inline size_t open_descriptors() {
  size_t n = 0;
  DIR* handle = opendir("/proc/self/fd");
  while (readdir(handle) != nullptr) ++n;
  closedir(handle);
  return n;
}

inline size_t mappings() {
  const std::string maps = slurp("/proc/self/maps");
  return static_cast<size_t>(std::count(maps.begin(), maps.end(), '\n'));
}

constexpr std::chrono::seconds kPatience{60};

/// Where threads stand still until it opens. From any thread.
class Gate {
 public:
  Status pass() {
    const MutexLock lock(mutex_);
    here_.insert(std::this_thread::get_id());
    arrived_.notify_all();
    open_.wait(mutex_, [this]() REQUIRES(mutex_) { return is_open_; });
    return {};
  }
  /// Whether so many threads stood here at the same time, in the end.
  bool reached_by(size_t threads) {
    const MutexLock lock(mutex_);
    return arrived_.wait_for(mutex_, kPatience,
                             [&]() REQUIRES(mutex_) { return here_.size() >= threads; });
  }
  void open() {
    const MutexLock lock(mutex_);
    is_open_ = true;
    open_.notify_all();
  }

 private:
  Mutex mutex_;
  CondVar arrived_, open_;
  std::set<std::thread::id> here_ GUARDED_BY(mutex_);
  bool is_open_ GUARDED_BY(mutex_) = false;
};

class RegistryTest : public ::testing::Test {
 protected:
  void SetUp() override { CHIMERA_NEEDS_GOLDEN(); }

  std::string state() const { return temp_.path + "/state"; }
  std::unique_ptr<Daemon> start(Daemon::Settings settings = {}) {
    return std::make_unique<Daemon>(state(), std::move(settings));
  }
  /// A copy of a module that the test may damage.
  std::string copy(const std::string& name, const std::string& as = "copy") {
    const std::string to = temp_.path + "/" + as;
    fs::remove_all(to);
    fs::copy(Fixture::get().module(name), to, fs::copy_options::recursive);
    return to;
  }
  static std::string at(const std::string& name) { return Fixture::get().module(name); }

  TempDir temp_;
};

}  // namespace chimera::testing_support
