// What the gates of a module are: rows, biases and what grouped routing adds, without its experts.
//
// Thread safety: free functions.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "experts/kinds/module.h"
#include "experts/module/tensors.h"

namespace chimera {

/// `out`: [n]; as it is where there is no tensor.
Status read_gate_values(const TensorView* tensor, int64_t n, std::vector<float>* out);

/// Fills in the gate of `part`, of as many experts as `tensors` have. REQUIRES: they were checked.
Status read_gate(const LayerTensors& tensors, int64_t hidden, ModuleLayer* part);

/// A module of kind weights or bundle as far as routing goes: its experts are null, what it changes
/// of the backbone is left out, and of its files only headers and gates were read, without a look
/// at digests. For tables that nothing runs on. `dir` and `manifest` as check_module_outline()
/// found good.
Result<std::shared_ptr<const Module>> gates_of_module(const std::string& dir,
                                                      const Manifest& manifest,
                                                      const BackboneInfo& backbone);

}  // namespace chimera
