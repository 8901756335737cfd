// Modules of kind bundle: experts, and the tensors of the backbone that they were trained with.
//
// Thread safety: free functions; blocking, to be called off the engine thread.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "experts/kinds/module.h"

namespace chimera {

/// load_module for kind bundle. failed_precondition without BackboneInfo::source. The precision of
/// `options` is of its experts; what it changes of the backbone is kept as the backbone is.
Result<std::shared_ptr<const Module>> load_bundle_module(const std::string& dir,
                                                         const BackboneInfo& backbone,
                                                         const ModuleOptions& options = {});

/// What load_bundle_module checks but digests and numbers: manifest, names and shapes.
Status check_bundle_outline(const std::string& dir, const Manifest& manifest,
                            const ModelConfig& config, const std::string& fingerprint);

/// Everything that load_bundle_module checks of what `dir` holds, for programs that only look.
/// Without `shared_config` its shared tensors are not compared with a backbone; `config` is for its
/// experts.
Status verify_bundle(const std::string& dir, const Manifest& manifest, const ModelConfig& config,
                     const std::string& fingerprint, const ModelConfig* shared_config);

/// What the bundle changes of the backbone, by the header of its file; names and shapes are
/// checked. The views have no bytes to read.
Result<std::vector<SharedChange>> bundle_changes(const std::string& dir, const Manifest& manifest,
                                                 const ModelConfig& config);

}  // namespace chimera
