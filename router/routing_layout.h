// What routing tables of the same modules share: candidates, their gate rows and experts.
// Immutable.
//
// Each layer lists candidates: the base experts in slot order, then per module, in composition
// order, its experts. A candidate answers for a slot: appended experts have a slot of their own; a
// replacing expert shares the slot of the one it overrides, and among the permitted candidates of a
// slot the last one is active. So excluding a module by request gives back exactly what was there
// without it. For the same reason a replacing module without gate rows of its own is scored by the
// checkpoint's row of that slot, never by that of another module.
//
// A bundle brings a backbone of its own, and several bundles have one together that is made when a
// request may use them (averages.h).
//
// Gate rows stay where the modules have them: a layout is small, whatever it lays out.
//
// Thread safety: immutable but for a cache of its own, under a mutex.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <unordered_map>
#include <utility>
#include <vector>

#include "backbone/backbone.h"
#include "base/status.h"
#include "base/threads/mutex.h"
#include "experts/kinds/module.h"
#include "router/averages.h"
#include "router/module_mask.h"

namespace chimera {

/// Candidates next to one another whose gate rows lie together.
struct GateBlock {
  int32_t first = 0;  // candidate
  Matrix gate;        // [candidates of the block, hidden], F32; a module's own, or a copy
};

/// A layer without a router has no candidates.
struct LayerTable {
  int64_t candidates = 0;                              // C
  std::vector<GateBlock> blocks;                       // in order, of all C
  std::vector<float> bias;                             // [C]: gate.bias
  std::vector<float> correction;                       // [C] kGroupedSigmoid, else empty
  std::vector<int32_t> group;                          // [C] where there are groups, else empty
  std::vector<std::shared_ptr<const Expert>> experts;  // [C]
  std::vector<int32_t> owner;                          // [C] index into modules; 0 = backbone
  std::vector<int32_t> slot;                           // [C] base expert e has slot e
  std::vector<int32_t> index;                          // [C] number inside the owner's layer

  /// The gate row of a candidate, [hidden].
  const float* gate_row(int64_t candidate) const;
};

/// The candidates of a layer that a mask lets through.
struct ActiveLayer {
  std::vector<int32_t> candidates;  // [A] ascending
  std::vector<GateBlock> blocks;    // in order, of all A; `first` counts active candidates
  std::vector<float> correction;    // [A] or empty, as LayerTable's
  std::vector<int32_t> group;       // [A] or empty, as LayerTable's
};

class RoutingLayout;

/// What one mask makes of a layout. Shared by all requests that may use the same modules, on all
/// tables of the layout.
struct ActiveSet {
  std::shared_ptr<const RoutingLayout> layout;
  ModuleMask mask;
  std::vector<ActiveLayer> layers;
  int64_t most = 0;                     // active candidates of one layer at most
  std::vector<const Module*> adapters;  // of `mask`, in their order; the layout keeps them
  /// On the backbone's experts among the candidates; null where these never leave memory.
  std::shared_ptr<ExpertLease> lease;
  std::shared_ptr<const Backbone> single;  // of the only bundle of `mask`; null where there is none
  std::shared_ptr<Average> average;        // of several bundles; null where there are fewer

  /// Whether all that passes need is in memory: none may run before, and it stays then.
  bool ready() const;
  /// Has that read and made which is missing; again where it failed before.
  void begin(AverageFor whom) const;
  /// begin() for a composition, and waits: what cannot be had.
  Status wait() const;
  /// Why the last attempt failed; nothing while one is under way.
  std::optional<Status> failure() const;
  /// What rows go through: as if only the bundles of `mask` had been loaded; null: the deployment's
  /// own. REQUIRES: ready().
  const Backbone* backbone() const { return average ? &average->backbone() : single.get(); }
  /// `own`: the deployment's.
  const Backbone& backbone_or(const Backbone& own) const { return backbone() ? *backbone() : own; }
};

/// The backbone's experts among the candidates of a set.
std::vector<ExpertPlace> backbone_experts(const ActiveSet& active);

class RoutingLayout : public std::enable_shared_from_this<RoutingLayout> {
 public:
  using Modules = std::vector<std::shared_ptr<const Module>>;

  /// `modules`: the backbone's experts first. REQUIRES: they fit `config` and one another.
  RoutingLayout(const ModelConfig& config, Modules modules, std::shared_ptr<Averages> averages);

  const Modules& modules() const { return modules_; }
  /// Those that a request uses without naming them: all but adapters.
  const ModuleMask& unnamed() const { return unnamed_; }
  const std::vector<LayerTable>& layers() const { return layers_; }
  /// Of gate rows that it has copied to lie together; 0 where they stay with their modules.
  uint64_t gathered_bytes() const { return gathered_bytes_; }
  /// Keeps what stands for that memory in an account, for as long as it lives. Once, before anybody
  /// else knows it.
  void hold(std::shared_ptr<void> place) { place_ = std::move(place); }
  /// Index of a module, -1 when there is none of that name.
  int module_index(const std::string& name) const;
  /// The candidates that `mask` lets through; made once while anybody uses them. Nothing of what
  /// they need is begun.
  std::shared_ptr<const ActiveSet> active(const ModuleMask& mask) const EXCLUDES(mutex_);

 private:
  LayerTable build_layer(const ModelConfig& config, int64_t layer) const;
  /// What the bundles of `mask` bring.
  void set_backbone(const ModuleMask& mask, ActiveSet* made) const;

  const Modules modules_;
  const std::shared_ptr<Averages> averages_;
  ModuleMask unnamed_;
  std::vector<LayerTable> layers_;
  uint64_t gathered_bytes_ = 0;
  std::shared_ptr<void> place_;
  std::unordered_map<std::string_view, int> index_;  // names are the modules' own
  mutable Mutex mutex_;
  mutable std::vector<std::pair<ModuleMask, std::weak_ptr<const ActiveSet>>> active_
      GUARDED_BY(mutex_);
};

/// The layouts in use. Compositions of the same modules share one, so that tables which differ in
/// biases or in the number of experts alone have all of it in common.
class LayoutCache {
 public:
  /// Counts so many bytes, which are there already, for as long as what it gives lives.
  using Account = std::function<std::shared_ptr<void>(uint64_t bytes)>;

  /// Without `account` nobody counts what layouts hold.
  explicit LayoutCache(Account account = nullptr) : account_(std::move(account)) {}

  /// REQUIRES: as RoutingLayout's constructor.
  std::shared_ptr<const RoutingLayout> get(const ModelConfig& config,
                                           RoutingLayout::Modules modules,
                                           std::shared_ptr<Averages> averages) EXCLUDES(mutex_);
  /// The one of these modules if it is in use, else null.
  std::shared_ptr<const RoutingLayout> find(const RoutingLayout::Modules& modules) const
      EXCLUDES(mutex_);

 private:
  /// The modules are compared by address, so that looking keeps none of them alive.
  struct Known {
    std::vector<const Module*> modules;
    std::weak_ptr<const RoutingLayout> layout;
  };
  std::shared_ptr<const RoutingLayout> find_locked(const RoutingLayout::Modules& modules) const
      REQUIRES(mutex_);

  const Account account_;
  mutable Mutex mutex_;
  std::vector<Known> known_ GUARDED_BY(mutex_);
};

}  // namespace chimera
