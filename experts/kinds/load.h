// From a directory to a Module, whatever its kind.
//
// Thread safety: free functions; blocking, to be called off the engine thread.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "base/status.h"
#include "experts/kinds/module.h"

namespace chimera {

/// Loads a module directory: manifest, file digests over the very bytes that are used, fingerprint
/// and shapes, finite weights, experts built. Nothing is kept on failure. Blocking; call it off
/// the engine thread. The kinds: weights.h, library_module.h, lora.h and assembly_module.h. `lambda`:
/// coefficients of an assembly's parents, by name, in place of its recipe's; empty for other kinds.
Result<std::shared_ptr<const Module>> load_module(const std::string& dir,
                                                  const BackboneInfo& backbone,
                                                  const std::map<std::string, double>& lambda = {});

}  // namespace chimera
