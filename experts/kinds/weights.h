// Experts that are weights: of a module of kind `weights`, and of the checkpoint itself.
//
// Thread safety: free functions; blocking, to be called off the engine thread.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>

#include "backbone/checkpoint/checkpoint.h"
#include "base/status.h"
#include "experts/kinds/module.h"
#include "experts/module/payload.h"
#include "experts/module/stored_expert.h"
#include "experts/module/tensors.h"

namespace chimera {

/// One weight of an expert as loading with `precision` keeps it: in place where it is stored so.
/// REQUIRES: shapes were checked. Errors as of to_matrix.
Result<ExpertWeight> build_weight(const StoredProjection& stored, Precision precision,
                                  BlockShape block);

/// The experts and gates of tensors that were checked, by layer.
Result<std::map<int64_t, ModuleLayer>> build_module_layers(const ModuleTensors& tensors,
                                                           const Manifest& manifest,
                                                           const BackboneInfo& backbone);

/// A module of what open_module_payload() found good, with the experts built, in the precision of
/// `backbone`.
Result<std::shared_ptr<Module>> build_weights_module(const std::string& dir, ModulePayload payload,
                                                     const BackboneInfo& backbone);

/// load_module for kind weights. `precision` as of ModuleOptions.
Result<std::shared_ptr<const Module>> load_weights_module(
    const std::string& dir, const BackboneInfo& backbone,
    std::optional<Precision> precision = std::nullopt);

/// An expert of the checkpoint, as load_base_experts() makes it. `block`: of FP8 weights.
Result<std::shared_ptr<const Expert>> build_base_expert(const StoredExpert& stored,
                                                        const ModelConfig& config, BlockShape block,
                                                        Precision p);
/// Whether an expert made of it uses the stored bytes, instead of numbers made from them.
bool used_in_place(const StoredProjection& projection, Precision p);

/// The checkpoint's own experts and gate rows as a module named "backbone". Slots are 0..E-1 in
/// `slots`; it is always the first entry of a routing table.
Result<std::shared_ptr<const Module>> load_base_experts(const Checkpoint& checkpoint,
                                                        const ModelConfig& config, Precision p);

}  // namespace chimera
