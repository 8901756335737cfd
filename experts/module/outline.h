// What the manifest of a module and the headers of its files tell of it, without reading what they
// hold.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <string>

#include "experts/module/tensors.h"

namespace chimera {

/// How far tensors are looked at: what the header of their file says, or what they hold, too.
enum class TensorDepth : uint8_t { kHeader, kContent };

/// check_module_tensors to that depth.
Status check_module_tensors(const ModuleTensors& tensors, const Manifest& manifest,
                            const ModelConfig& config, TensorDepth depth);

/// What open_module_payload checks of a weights module but digests and numbers.
Status check_module_outline(const std::string& dir, const Manifest& manifest,
                            const ModelConfig& config, const std::string& fingerprint);

}  // namespace chimera
