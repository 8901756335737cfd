// Registry and control plane: which modules are loaded, how compositions follow one another.
//
// All changes go through one serial worker: spec -> manifests -> load (background, low priority)
// -> probe -> table built aside -> state written and synced -> published -> acknowledged. Any
// failure unwinds and the current epoch is untouched.
//
// Thread safety: all methods may be called from any thread; changes are serialised, readers are
// not held up by a running change.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backbone/tokenizer.h"
#include "daemon/config.h"
#include "daemon/engine.h"
#include "daemon/state_store.h"
#include "experts/module.h"

namespace chimera {

struct ModuleStatus {
  std::string name, version, domain, description, digest, license, attach, kind;
  bool enabled = true;
  float bias = 0.0f;
  int64_t experts = 0;
  uint64_t resident_bytes = 0;
  std::string state;  // "active" | "disabled" | "loading" | "retiring"
};

struct ChangeItem {
  std::string action;  // load | unload | replace | enable | disable | bias | reorder | top_k
  std::string module;
  std::string detail;
};

struct PlanReport {
  std::vector<ChangeItem> changes;
  int64_t memory_bytes = 0;         // additional resident bytes while both tables live
  std::vector<Status> refusals;     // empty: apply would be accepted
  std::string composition;          // digest that would result
};

struct ChangeReport {
  uint64_t epoch = 0;
  std::string composition;
  std::vector<ChangeItem> changes;
};

struct LoadArgs {
  std::string path;
  std::string name;  // optional: must equal the manifest's when given
  std::optional<bool> enabled;
  std::optional<float> bias;
  InFlight in_flight = InFlight::kPin;
};

class Registry {
 public:
  struct Options {
    std::shared_ptr<const Backbone> backbone;
    std::shared_ptr<const Tokenizer> tokenizer;  // may be null
    std::shared_ptr<const Module> base;
    std::string fingerprint;
    StateStore* store = nullptr;  // outlives the registry
  };
  explicit Registry(Options options);
  ~Registry();

  /// Builds the first table: the last acknowledged composition of the state directory if there is
  /// one, else the deployment's. A module that no longer loads is left out with a warning naming
  /// it; the daemon still starts.
  Result<std::shared_ptr<const RoutingTable>> start(const CompositionSpec& deployment);
  /// Must be called once before any change; the engine outlives all changes.
  void attach_engine(Engine* engine);

  Result<ChangeReport> load(const LoadArgs& args);
  Result<ChangeReport> unload(const std::string& name);
  Result<ChangeReport> revoke(const std::string& name);
  Result<ChangeReport> set_bias(const std::string& name, float value);
  PlanReport plan(const CompositionSpec& spec);
  Result<ChangeReport> apply(const CompositionSpec& spec, InFlight in_flight);
  /// To the composition of `epoch`, or the one before the current.
  Result<ChangeReport> rollback(std::optional<uint64_t> epoch);

  std::vector<ModuleStatus> modules() const;
  std::vector<EpochRecord> history() const;

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace chimera
