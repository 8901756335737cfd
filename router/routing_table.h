// Routing table: a composition compiled for execution. Immutable; published once.
//
// Each layer lists candidates: the base experts in slot order, then per enabled module, in
// composition order, its experts. A candidate answers for a slot: appended experts have a slot of
// their own; a replacing expert shares the slot of the one it overrides, and among the permitted
// candidates of a slot the last one is active. So excluding a module by request gives back exactly
// what was there without it. For the same reason a replacing module without gate rows of its own
// is scored by the checkpoint's row of that slot, never by that of another module.
//
// Thread safety: immutable after RoutingTableBuilder::build. Sequences hold a shared_ptr.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "base/limits.h"
#include "base/status.h"
#include "experts/kinds/module.h"
#include "router/composition.h"
#include "router/gating.h"
#include "router/top_k.h"

namespace chimera {

/// A layer without a router has no candidates.
struct LayerTable {
  int64_t candidates = 0;                              // C
  Matrix gate;                                         // [C, hidden], F32
  std::vector<float> bias;                             // [C]: gate.bias + composition bias
  std::vector<float> correction;                       // [C] kGroupedSigmoid, else empty
  std::vector<int32_t> group;                          // [C] kGroupedSigmoid, else empty
  std::vector<std::shared_ptr<const Expert>> experts;  // [C]
  std::vector<int32_t> owner;                          // [C] index into modules; 0 = backbone
  std::vector<int32_t> slot;                           // [C] base expert e has slot e
  std::vector<int32_t> index;                          // [C] number inside the owner's layer
};

/// Which modules a request may use, bit i = modules()[i]; bit 0 (backbone) is always set.
using ModuleMask = uint64_t;
inline constexpr int kMaxModules = 63;  // beside the backbone

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
  int64_t top_k(ModuleMask mask) const;
  /// What the operator should know: modules that were fitted for another top_k.
  std::vector<std::string> notes() const { return notes(all()); }
  /// The same to those who know the modules of `mask` alone.
  std::vector<std::string> notes(ModuleMask mask) const;
  const GateRule& gate_rule() const { return gate_rule_; }
  const std::vector<LayerTable>& layers() const { return layers_; }
  /// [0] is the backbone, then the enabled modules in order.
  const std::vector<std::shared_ptr<const Module>>& modules() const { return modules_; }
  /// Index of a module, -1 when not in the table.
  int module_index(const std::string& name) const;
  ModuleMask all() const;

  /// Per layer the active candidates under `mask`: 1 active, 0 masked. [layers][C]
  std::vector<std::vector<uint8_t>> active(ModuleMask mask) const;
  /// Digest of what `mask` lets through (modules, digests, biases, order, top_k) plus per-request
  /// biases; equal scopes give equal outputs whatever else the table holds. Keys the prefix cache
  /// and lets an unaffected sequence move to the next epoch.
  std::string scope(ModuleMask mask, std::span<const float> request_bias) const;

 private:
  friend class RoutingTableBuilder;
  /// The modules of `mask` with the top_k that they state.
  std::vector<FittedModule> fitted(ModuleMask mask) const;

  uint64_t epoch_ = 0;
  std::string digest_;
  Composition composition_;
  int64_t default_top_k_ = 0;
  GateRule gate_rule_;
  std::vector<LayerTable> layers_;
  std::vector<std::shared_ptr<const Module>> modules_;
};

/// Compiles a table aside; the published type and the builder are different types so that a
/// half-built table cannot be published.
class RoutingTableBuilder {
 public:
  RoutingTableBuilder(const ModelConfig& config, std::shared_ptr<const Module> base);
  /// `loaded[i]` is the module of composition.modules[i] (null allowed when disabled). Checks
  /// counts, duplicate names, slots of replacing modules, top_k, finite biases.
  Result<std::shared_ptr<const RoutingTable>> build(
      uint64_t epoch, const Composition& composition,
      std::span<const std::shared_ptr<const Module>> loaded) const;

 private:
  Status check(const Composition& composition,
               std::span<const std::shared_ptr<const Module>> loaded) const;
  Status check_module(const Module& module) const;
  Status check_gate(const std::string& where, const Module& module, const ModuleLayer& part) const;
  void add_gate(const ModuleLayer& part, size_t e, int64_t slot, const ModuleLayer* base,
                std::vector<float>& gate, LayerTable& table) const;
  LayerTable build_layer(int64_t layer, std::span<const std::shared_ptr<const Module>> modules,
                         std::span<const float> module_bias) const;

  ModelConfig config_;
  std::shared_ptr<const Module> base_;
};

}  // namespace chimera
