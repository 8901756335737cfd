// Module: a loaded expert module, ready to be put into a routing table.
//
// Lifetime: shared and immutable. Routing tables hold references; the memory goes when the last
// table, and so the last sequence on it, lets go.
//
// Thread safety: immutable once loaded; loading is a free function, from any thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backbone/checkpoint/checkpoint.h"
#include "backbone/families/model_config.h"
#include "base/io/digest_memo.h"
#include "experts/bundle/bundle.h"
#include "experts/expert.h"
#include "experts/kinds/traces.h"
#include "experts/lora/adapter.h"
#include "experts/lora/adapter_source.h"
#include "experts/lora/base_weights.h"
#include "experts/module/manifest.h"
#include "experts/residency/expert_residency.h"

namespace chimera {

class AssemblySource;
class LibraryBackend;
class LibraryRuntime;

/// The experts that a module brings to one layer. `n` = experts.size().
struct ModuleLayer {
  std::vector<std::shared_ptr<const Expert>> experts;
  std::vector<int64_t> slots;      // replace: the slot of each expert; append: empty
  std::vector<float> gate_weight;  // [n, hidden]; replace without own rows: empty
  std::vector<float> gate_bias;    // [n] or empty
  // Grouped routing (deepseek_v3) only, see router/gating.h.
  std::vector<float> gate_correction;  // [n] or empty: 0, or that of the slot replaced
  std::vector<int32_t> gate_group;     // [n] or empty: outside the groups
};

/// What a composition may say of how a module is made.
struct ModuleOptions {
  /// Kind assembly: λ of parents by name, some or all; empty: those of its recipe.
  std::map<std::string, double> lambda{};
  /// Kinds weights and assembly: of its experts; none: its manifest's, else the deployment's.
  std::optional<Precision> precision{};
  /// Kind bundle: beside other bundles, up to kMaxBundleWeight; none: its manifest's.
  std::optional<double> weight{};
};

class Module {
 public:
  Manifest manifest;
  std::map<int64_t, ModuleLayer> layers;    // by layer index
  std::string dir;                          // where it was read from (not shown on the wire)
  std::shared_ptr<LibraryBackend> library;  // kind library: what its experts call; else null
  std::vector<HeldBytes> held;  // kinds weights and bundle: its files, while they are in memory
  // Kind lora has one of these: the adapter, or where it is read from when it is used.
  std::shared_ptr<const Adapter> adapter;
  std::shared_ptr<const AdapterSource> adapter_source;
  std::shared_ptr<const Bundle> bundle;            // kind bundle; else null
  std::shared_ptr<const AssemblySource> assembly;  // kind assembly: what it is made of; else null
  /// Of the backbone's, where its experts may leave memory (evictable_base.h); else null.
  std::shared_ptr<ExpertResidency> residency;
  /// Kind assembly: λ in force, of every parent by name; empty: those of its recipe.
  std::map<std::string, double> lambda;
  std::optional<Precision> asked_precision;  // as ModuleOptions::precision
  std::optional<Precision> precision;        // in force; none: its kind has none
  std::optional<double> asked_weight;        // as ModuleOptions::weight

  const std::string& name() const { return manifest.name; }
  bool is_adapter() const { return adapter != nullptr || adapter_source != nullptr; }
  /// Of an adapter what it adds, for as long as the answer is kept; null when it is not in memory.
  std::shared_ptr<const Adapter> hold_adapter() const {
    return adapter_source != nullptr ? adapter_source->hold() : adapter;
  }
  uint64_t resident_bytes() const;
  int64_t expert_count() const;
};

/// The name of the memory file that a library of that digest is loaded from.
std::string library_image_name(const std::string& module, const std::string& sha256);

/// What a module must fit.
struct BackboneInfo {
  ModelConfig config;
  std::string fingerprint;
  Precision precision = Precision::kBF16;               // of experts, where nothing else says one
  std::shared_ptr<LibraryRuntime> libraries = nullptr;  // null: modules of kind library are refused
  std::shared_ptr<DigestMemo> digests = nullptr;        // null: everything is hashed in full
  /// Whether the module of a directory may be used, asked before any of its code runs and any of
  /// its weights count. Null: every one may.
  std::function<Status(const std::string& dir, const Manifest& manifest)> accept = nullptr;
  std::shared_ptr<const BaseWeights> weights = nullptr;  // null: adapters with DoRA are refused
  /// What bundles change; null: they cannot be loaded, only be looked at.
  std::shared_ptr<const BackboneSource> source = nullptr;
};

/// `backbone` with the precision that is in force for a module: `asked`, else its manifest's, else
/// the backbone's own. failed_precondition: one is asked for, and its kind has no weights to keep
/// in it.
Result<BackboneInfo> with_precision(const BackboneInfo& backbone, const Manifest& manifest,
                                    std::optional<Precision> asked);

/// failed_precondition: a weight is asked for, and the module is no bundle.
Status check_weight(const Manifest& manifest, std::optional<double> asked);

}  // namespace chimera
