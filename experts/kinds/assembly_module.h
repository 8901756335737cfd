// Modules of kind assembly: made from parents when they are loaded, and made again with other
// coefficients while they serve.
//
// The result is, bit for bit, the module that `chimera module assemble` writes of the same recipe.
//
// Thread safety: free functions, from any thread; blocking, to be called off the engine thread.
#pragma once

#include <map>
#include <memory>
#include <string>

#include "base/status.h"
#include "experts/assembly/source.h"
#include "experts/kinds/module.h"

namespace chimera {

/// load_module for kind assembly. The parents are hashed, and compared with what module.yaml names.
/// `lambda` may be empty, or name some of the parents (complete_lambdas).
Result<std::shared_ptr<const Module>> load_assembly_module(
    const std::string& dir, const BackboneInfo& backbone,
    const std::map<std::string, double>& lambda);

/// A module that was loaded already, with these coefficients, of all its parents: `source`,
/// `manifest` and `dir` are its own. failed_precondition when a parent was changed on disk since.
Result<std::shared_ptr<const Module>> blend_module(std::shared_ptr<const AssemblySource> source,
                                                   const Manifest& manifest, const std::string& dir,
                                                   const Lambdas& lambda,
                                                   const BackboneInfo& backbone);

/// failed_precondition: coefficients for a module that has no parents.
Status no_parents(const Manifest& manifest);

/// What headers tell of a module of kind assembly before it is made: whether its parents are there
/// and fit together and the backbone.
Status check_assembly_outline(const AssemblySource& source, const Manifest& manifest,
                              const BackboneInfo& backbone);

}  // namespace chimera
