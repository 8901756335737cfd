// Modules as `split` writes them, from the experts of a checkpoint: what cutting by slots and by
// difference have in common.
//
// Thread safety: free functions, from any thread, each with its own output.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <set>
#include <string>
#include <vector>

#include "backbone/checkpoint/checkpoint.h"
#include "backbone/families/model_config.h"
#include "base/status.h"
#include "experts/module/base_tensors.h"
#include "experts/offline/cut.h"

namespace chimera {

using Slots = std::map<int64_t, std::vector<int64_t>>;  // by layer, ascending

/// A checkpoint whose experts are looked at. Layers without a router have no entry.
struct CutSource {
  const Checkpoint& checkpoint;
  ModelConfig config;
  std::map<int64_t, BaseLayer> layers;

  static Result<CutSource> read(const Checkpoint& checkpoint);
};

/// One module to write.
struct ModuleCut {
  std::string name;
  Attach attach = Attach::kAppend;
  Slots slots;                    // of the source, at least one layer
  std::set<int64_t> gate_layers;  // layers that get gate rows of their own; append: all
  std::string fingerprint;        // of the backbone it belongs to
  std::string license;
  std::optional<int64_t> original_top_k;
  std::string description{};           // empty: split from such a checkpoint
  std::vector<std::string> parents{};  // provenance.parents, as flow YAML
};

/// Slots of one requested module, layer by layer, checked against the source.
Result<Slots> resolve_slots(const SplitModule& module, const ModelConfig& config);
/// invalid_argument when two modules share a slot; already_exists when they share a name.
Status check_disjoint(const std::vector<SplitModule>& modules, const std::vector<Slots>& slots);
/// Writes weights.safetensors and module.yaml into the existing directory `dir`. Tensors are moved
/// bit for bit; experts that a stack stores transposed or interleaved are put in the order of
/// design §6.
Status write_cut_module(const std::string& dir, const ModuleCut& cut, const CutSource& source);

/// The given entries of the first dimension, in that order, under `name`.
TensorView gather_rows(const TensorView& from, const std::vector<int64_t>& rows, std::string name);
/// The groups of the given experts as an I32 tensor.
TensorView group_tensor(const std::vector<int32_t>& groups, const std::vector<int64_t>& rows,
                        std::string name);

/// split_checkpoint with SplitOptions::parent_dir.
Result<SplitReport> split_difference(const SplitOptions& options);

}  // namespace chimera
