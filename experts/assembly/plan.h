// What an assembly is going to do: which tensor comes from where, by which rule, and where in the
// output it goes. Made from headers alone; parents that do not fit are named here, before anything
// is computed or written.
//
// Thread safety: immutable after plan_assembly.
#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "experts/assembly/arithmetic.h"
#include "experts/assembly/parent.h"
#include "experts/assembly/recipe/recipe.h"

namespace chimera {

/// One tensor as rules see it.
struct PlannedTensor {
  TensorTraits traits;
  std::vector<const TensorData*> parents;  // [0] the base's; the others only when a rule takes it
  std::optional<size_t> rule;              // none: from the base
  Merge merge;                             // of the rule, but for what measuring finds
  double delta = 0;
  DType dtype = DType::kF32;  // of the output

  const TensorData& base() const { return *parents[0]; }
  /// Whether λ alone say that the result is the base's.
  bool base_only() const;
};

/// Where a planned tensor goes inside a slice of the output.
struct OutputPiece {
  size_t tensor = 0;  // index into AssemblyPlan::tensors
  Strides at;         // in elements of the slice
  bool dense() const { return at.dense(); }
};

/// A run of bytes of an output tensor that is written at once: all of it, or one expert of a stack.
struct OutputSlice {
  uint64_t offset = 0;  // bytes from the beginning of the tensor
  uint64_t bytes = 0;
  std::vector<OutputPiece> pieces;
};

struct OutputTensor {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  uint64_t bytes = 0;
  std::vector<OutputSlice> slices;
  int64_t group = -1;  // module of what differs: tensors of one expert stand or fall together
};

struct AssemblyPlan {
  Recipe recipe;
  std::vector<std::shared_ptr<const Parent>> parents;
  std::vector<PlannedTensor> tensors;
  std::vector<OutputTensor> outputs;        // in the order they are stored
  std::vector<std::vector<size_t>> shards;  // of `outputs`
  std::vector<std::string> warnings;

  /// A module, rather than a checkpoint, is written.
  bool module_output() const { return !recipe.module.empty(); }
  /// Only experts that differ from the base are written.
  bool only_differences() const { return module_output() && !parents[0]->is_module(); }
  bool changes_encoding() const;
  uint64_t output_bytes() const;
  uint64_t input_bytes() const;
};

/// Opens the parents and matches them. failed_precondition naming tensor by tensor (up to a limit)
/// what does not fit. `shard_bytes`: largest file, but for a larger tensor.
Result<AssemblyPlan> plan_assembly(Recipe recipe, uint64_t shard_bytes);

/// The same of parents that are open, and found to be of one kind, already: those of the recipe, in
/// its order. Nothing to be assembled is no error here.
Result<AssemblyPlan> plan_assembly(Recipe recipe,
                                   std::vector<std::shared_ptr<const Parent>> parents);

}  // namespace chimera
