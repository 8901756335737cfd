// Routing table: a composition compiled for execution. Immutable; published once.
//
// What the modules bring is in the table's layout, which it shares with every other table of the
// same modules; its own are the epoch, top_k and one bias per module.
//
// Thread safety: immutable after RoutingTableBuilder::build. Sequences hold a shared_ptr.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "experts/kinds/module.h"
#include "router/averages.h"
#include "router/composition.h"
#include "router/gating.h"
#include "router/module_mask.h"
#include "router/routing_layout.h"
#include "router/top_k.h"

namespace chimera {

class RoutingTable {
 public:
  uint64_t epoch() const { return epoch_; }
  /// Digest of the composition.
  const std::string& digest() const { return digest_; }
  const Composition& composition() const { return composition_; }
  /// Experts that a token visits when all modules may be used.
  int64_t top_k() const { return top_k(all()); }
  /// The same for a request that may use those of `mask` alone: a masked module has no say in it,
  /// as if it had never been loaded.
  int64_t top_k(const ModuleMask& mask) const;
  /// What the operator should know: modules that were fitted for another top_k.
  std::vector<std::string> notes() const { return notes(all()); }
  /// The same to those who know the modules of `mask` alone.
  std::vector<std::string> notes(const ModuleMask& mask) const;
  const GateRule& gate_rule() const { return gate_rule_; }
  const std::shared_ptr<const RoutingLayout>& layout() const { return layout_; }
  const std::vector<LayerTable>& layers() const { return layout_->layers(); }
  /// [0] is the backbone, then the enabled modules in order.
  const std::vector<std::shared_ptr<const Module>>& modules() const { return layout_->modules(); }
  /// Index of a module, -1 when not in the table.
  int module_index(const std::string& name) const { return layout_->module_index(name); }
  /// All modules, and the backbone. A mask that lets a request choose lets through the backbone,
  /// and nothing that is not in here.
  const ModuleMask& all() const { return all_; }

  /// What the composition adds to the logits of a module's experts; 0 for the backbone.
  float module_bias(size_t module) const { return module_bias_[module]; }
  /// What is added to the logit of a candidate: gate.bias and the bias of its module.
  float bias(size_t layer, size_t candidate) const {
    const LayerTable& table = layers()[layer];
    return table.bias[candidate] + module_bias_[static_cast<size_t>(table.owner[candidate])];
  }

  /// Digest of what `mask` lets through (modules, digests, biases, order, top_k) plus per-request
  /// biases ([modules], or empty for none); equal scopes give equal outputs whatever else the table
  /// holds. Keys the prefix cache and lets an unaffected sequence move to the next epoch.
  std::string scope(const ModuleMask& mask, std::span<const float> request_bias) const;
  /// Whether scope() of these two is the same on `other`, which has the same layout, without making
  /// it. False where it would take that to know.
  bool same_scope(const RoutingTable& other, const ModuleMask& mask) const;

 private:
  friend class RoutingTableBuilder;

  uint64_t epoch_ = 0;
  std::string digest_;
  Composition composition_;
  int64_t default_top_k_ = 0;
  GateRule gate_rule_;
  std::shared_ptr<const RoutingLayout> layout_;
  ModuleMask all_;
  std::vector<float> module_bias_;  // [modules]
  std::vector<size_t> entry_;       // [modules] in the composition; of the backbone: none
};

/// Compiles a table aside; the published type and the builder are different types so that a
/// half-built table cannot be published. Copies share their layouts and averages. Thread safety:
/// const methods from any thread.
class RoutingTableBuilder {
 public:
  /// `account`: of memory that tables hold themselves; null: nobody counts it. `average` as
  /// Averages'.
  RoutingTableBuilder(const ModelConfig& config, std::shared_ptr<const Module> base,
                      LayoutCache::Account account = nullptr, Averages::Make average = nullptr);
  /// `loaded[i]` is the module of composition.modules[i] (null allowed when disabled). Checks
  /// counts, duplicate names, slots of replacing modules, top_k, finite biases. Averages of
  /// bundles are not made here: an ActiveSet has what it needs made.
  Result<std::shared_ptr<const RoutingTable>> build(
      uint64_t epoch, const Composition& composition,
      std::span<const std::shared_ptr<const Module>> loaded) const;
  /// Of the bundles of its tables.
  const std::shared_ptr<Averages>& averages() const { return averages_; }

 private:
  /// What can be wrong with any composition, whatever its modules bring.
  Status check(const Composition& composition,
               std::span<const std::shared_ptr<const Module>> loaded) const;
  Status check_module(const Module& module) const;
  Status check_layer(const Module& module, int64_t layer, const ModuleLayer& part) const;

  ModelConfig config_;
  std::shared_ptr<const Module> base_;
  std::shared_ptr<Averages> averages_;
  std::shared_ptr<LayoutCache> layouts_;
};

}  // namespace chimera
