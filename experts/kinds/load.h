// From a directory to a Module, whatever its kind.
//
// Thread safety: free functions; blocking, to be called off the engine thread.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "experts/kinds/module.h"

namespace chimera {

/// Loads a module directory: manifest, file digests over the very bytes that are used, fingerprint
/// and shapes, finite weights, experts built. Nothing is kept on failure. Blocking; call it off
/// the engine thread. The kinds: weights.h, library_module.h, lora.h, assembly_module.h and
/// bundle_module.h. failed_precondition: `options` has what a module of that kind has no use for.
Result<std::shared_ptr<const Module>> load_module(const std::string& dir,
                                                  const BackboneInfo& backbone,
                                                  const ModuleOptions& options = {});

}  // namespace chimera
