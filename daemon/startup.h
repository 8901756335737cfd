// What has to be in order before a daemon starts: paths, sockets, the checkpoint.
//
// Thread safety: by the main thread, before the daemon serves.
#pragma once

#include <chrono>
#include <memory>
#include <string>
#include <vector>

#include "base/io/file_lock.h"
#include "daemon/config/config.h"
#include "daemon/engine/engine.h"
#include "daemon/model/loaded_backbone.h"
#include "daemon/registry/registry.h"
#include "daemon/registry/state/store.h"

namespace chimera {

/// Creates missing parent directories (0700) of ipc endpoints and takes the lock beside each
/// socket: failed_precondition naming the process when another daemon has it.
Result<std::vector<FileLock>> lock_endpoints(const DeploymentConfig& config);

/// What library modules share: limits, and their lines in the daemon's log.
std::shared_ptr<LibraryRuntime> library_runtime(const DeploymentConfig& config);

/// Tell what was found that stops nobody: generations of the state that cannot be read; a chat
/// template that does not work, and limits of the deployment that the model's own undercut.
void log_findings(const StateStore& state);
void log_findings(const DeploymentConfig& config, const LoadedBackbone& model);
/// Tells where the daemon serves, on which epoch, and how long it took to get there.
void log_ready(const DeploymentConfig& config, const Engine& engine,
               std::chrono::steady_clock::duration took);

/// What the whole process wants of the system: memory back when a module is released, and as many
/// open descriptors as there may be, as every connection is one. Best effort.
void prepare_process();

EngineOptions engine_options(const DeploymentConfig& config);

}  // namespace chimera
