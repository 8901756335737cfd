// Signatures of modules: module.yaml.minisig beside module.yaml, in minisign's format, so that
// `minisign -V -p KEY.pub -m module.yaml` verifies it too.
//
// Thread safety: free functions; files are read and written by the calling thread.
#pragma once

#include <string>

#include "base/json/json.h"
#include "base/status.h"

namespace chimera {

/// Signs a sealed module with a secret key of minisign's format. `expires`: "", or a day or moment
/// of UTC after which the signature counts no more. Answers what was signed, by which key.
Result<Json> sign_module(const std::string& dir, const std::string& key_file,
                         const std::string& expires);

/// The trusted comment of a good signature by the key of the .pub file; permission_denied else.
Result<std::string> check_module_signature(const std::string& dir, const std::string& key_file);

}  // namespace chimera
