// Modules of kind assembly: made from parents when they are loaded, and made again with other
// coefficients while they serve.
//
// The result is, bit for bit, the module that `chimera module assemble` writes of the same recipe.
//
// Thread safety: free functions, from any thread; blocking, to be called off the engine thread.
#pragma once

#include <memory>
#include <string>

#include "base/status.h"
#include "experts/assembly/source.h"
#include "experts/kinds/module.h"

namespace chimera {

/// load_module for kind assembly. The parents are hashed, and compared with what module.yaml names.
/// λ may be those of some parents (complete_lambdas).
Result<std::shared_ptr<const Module>> load_assembly_module(const std::string& dir,
                                                           const BackboneInfo& backbone,
                                                           const ModuleOptions& options);

/// A module that was loaded already, with these options, λ of all its parents among them: `source`,
/// `manifest` and `dir` are its own. failed_precondition when a parent was changed on disk since.
Result<std::shared_ptr<const Module>> blend_module(std::shared_ptr<const AssemblySource> source,
                                                   const Manifest& manifest, const std::string& dir,
                                                   const ModuleOptions& options,
                                                   const BackboneInfo& backbone);

/// failed_precondition: coefficients for a module that has no parents.
Status no_parents(const Manifest& manifest);

/// What headers tell of a module of kind assembly before it is made: whether its parents are there
/// and fit together and the backbone.
Status check_assembly_outline(const AssemblySource& source, const Manifest& manifest,
                              const BackboneInfo& backbone);

}  // namespace chimera
