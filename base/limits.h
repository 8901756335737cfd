// Limits that several rooms must agree on: what the wire, the deployment file and the router
// accept.
//
// Thread safety: constants.
#pragma once

#include <cstddef>
#include <cstdint>

namespace chimera {

/// |bias| of a module, which is added to its gate logits, may not exceed this: logits of real gates
/// stay well below, so more only drowns the gate.
inline constexpr double kMaxBias = 100.0;
/// Most experts per token. Far above any released model (8), and it bounds the work per token.
inline constexpr int64_t kMaxTopK = 64;
/// Most modules of a composition beside the backbone: four times of what anybody was seen to need.
inline constexpr int kMaxModules = 4096;
/// |λ| of a parent of an assembly: beyond it nothing is a mixture any more.
inline constexpr double kMaxLambda = 1000.0;
/// Of a bundle beside others; above 0. It counts by its ratio to those of the others.
inline constexpr double kMaxBundleWeight = 1e6;
/// Most parents of an assembly.
inline constexpr size_t kMaxParents = 64;

}  // namespace chimera
