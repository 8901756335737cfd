// `chimerad --check`: whether a deployment would start, found out without starting it.
//
// Thread safety: by the main thread.
#pragma once

#include <string>

#include "base/status.h"
#include "daemon/config/config.h"

namespace chimera {

/// Looks at everything that the deployment names and creates nothing: the checkpoint's
/// configuration, every tensor, its tokenizer and template; the modules, with digests and fit;
/// endpoints, state directory and watched directories, whether they are there or could be made.
/// Reads what a start would read. Writes a summary for people to `summary`; all problems in one
/// Status, each with the reason that a start would give.
Status check_deployment(const DeploymentConfig& config, std::string* summary);

}  // namespace chimera
