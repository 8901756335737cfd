// What has to be in order before a daemon starts: paths, sockets, the checkpoint.
//
// Thread safety: by the main thread, before the daemon serves.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/io/file_lock.h"
#include "daemon/config/config.h"
#include "daemon/engine/engine.h"
#include "daemon/registry/registry.h"

namespace chimera {

/// Creates missing parent directories (0700) of ipc endpoints and takes the lock beside each
/// socket: failed_precondition naming the process when another daemon has it.
Result<std::vector<FileLock>> lock_endpoints(const DeploymentConfig& config);

/// What library modules share: limits, and their lines in the daemon's log.
std::shared_ptr<LibraryRuntime> library_runtime(const DeploymentConfig& config);

/// Tells of limits of the deployment that the model's own undercut.
void log_limits(const DeploymentConfig& config, const ModelConfig& model);

/// Takes as many open descriptors as the system grants: every connection is one. Best effort.
void raise_descriptor_limit();

EngineOptions engine_options(const DeploymentConfig& config);

}  // namespace chimera
