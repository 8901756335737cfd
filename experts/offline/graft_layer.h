// One layer of a grafted checkpoint: experts of the backbone and of modules in their places,
// written in the layout of the backbone.
//
// Lifetime: the modules' tensors must outlive the object; what `write` adds stands on its own.
//
// Thread safety: none; an object by one thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backbone/families/model_config.h"
#include "base/status.h"
#include "experts/module/base_tensors.h"
#include "experts/module/tensors.h"

namespace chimera {

class GraftLayer {
 public:
  /// `groups`: base_groups(base); `experts`: of the layer when all are in place.
  GraftLayer(const ModelConfig& config, int64_t layer, BaseLayer base, std::vector<int32_t> groups,
             int64_t experts);

  /// Places the experts of an appending module at `slots`, or behind the base experts when null.
  Status append(const std::string& module, const LayerTensors& part,
                const std::vector<int64_t>* slots);
  /// Base experts fill what is free, in order. Call once, after all appending modules.
  void place_base();
  /// Puts the experts of a replacing module over base experts.
  Status replace(const std::string& module, const LayerTensors& part);
  /// failed_precondition for what the layout of the checkpoint cannot express.
  Status write(std::vector<TensorView>& tensors) const;

 private:
  /// Row `row` of a tensor that the router has one row per expert of; null: zeros.
  struct Row {
    const TensorView* from = nullptr;
    int64_t row = 0;
  };
  struct Placed {
    StoredExpert expert;
    Row gate, bias, correction;
    int32_t group = -1;
    std::string owner;  // module name, for messages
  };

  Result<Placed> from_module(const std::string& module, const LayerTensors& part,
                             int64_t number) const;
  Status check_groups() const;
  Status check_part(const Placed& placed, size_t projection, Part part, const StoredPart* model,
                    const StoredPart* found) const;
  TensorView rows_tensor(const TensorView& base, Row Placed::*row) const;
  Status write_single(std::vector<TensorView>& tensors) const;
  Status write_stacks(std::vector<TensorView>& tensors) const;

  const ModelConfig& config_;
  int64_t layer_;
  BaseLayer base_;
  std::vector<int32_t> base_groups_;
  std::vector<std::optional<Placed>> placed_;
  std::vector<size_t> base_at_;  // place of every base expert
  size_t next_;                  // place of the next appended expert without a recorded slot
};

}  // namespace chimera
