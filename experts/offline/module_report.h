// What `chimera-module inspect` and `verify` say of a directory, as JSON; the program prints it.
//
// Thread safety: free functions, from any thread; one seal_module per directory at a time.
#pragma once

#include <string>

#include "base/json/json.h"
#include "base/status.h"
#include "experts/module/manifest.h"
#include "experts/module/payload.h"

namespace chimera {

/// A module directory (module.yaml) or a checkpoint directory (config.json): what it is and what
/// it holds. A checkpoint is judged as well: `verdict` (may be null) becomes the reason for which
/// the daemon refuses it, or ok. not_found for any other directory.
Result<Json> inspect_directory(const std::string& dir, Status* verdict = nullptr);

/// Checks a module: manifest, file digests, tensor names and shapes, finite numbers; with
/// `backbone_dir` also the fingerprint and the fit. Lists the checks that were made.
Result<Json> verify_module(const std::string& dir, const std::string& backbone_dir);
/// The same with a manifest that is not, or not yet, the one in `dir`.
Result<Json> verify_manifest(const std::string& dir, const Manifest& manifest,
                             const std::string& backbone_dir);

/// The payload of a module of kind weights, checked as far as it can be without its backbone.
Result<ModulePayload> open_payload_alone(const std::string& dir, const Manifest& manifest);

/// Fingerprint of the checkpoint in `dir`.
Result<std::string> checkpoint_fingerprint(const std::string& dir);

/// Writes the fingerprint of `backbone_dir` and the digests of the files into `dir`/module.yaml,
/// changing those values and nothing else, once the module so sealed has passed verify_module,
/// whose report is returned. A module that does not pass is left as it is. Keys that are absent are
/// not added: not_found names them.
Result<Json> seal_module(const std::string& dir, const std::string& backbone_dir);

}  // namespace chimera
