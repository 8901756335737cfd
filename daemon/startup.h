// What has to be in order before a daemon starts: paths, sockets, the checkpoint.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "backbone/backbone.h"
#include "backbone/chat_template.h"
#include "backbone/tokenizer.h"
#include "daemon/config.h"
#include "daemon/engine.h"
#include "daemon/file_lock.h"
#include "daemon/registry.h"

namespace chimera {

/// `--check`: looks at everything the deployment names without starting or creating anything.
/// Writes a summary for people to `summary`; all problems in one Status.
Status check_deployment(const DeploymentConfig& config, std::string* summary);

/// Creates missing parent directories (0700) of ipc endpoints and takes the lock beside each
/// socket: failed_precondition naming the process when another daemon has it.
Result<std::vector<FileLock>> lock_endpoints(const DeploymentConfig& config);

/// The checkpoint of a deployment, in memory.
struct LoadedBackbone {
  std::shared_ptr<const Backbone> backbone;
  std::shared_ptr<const Tokenizer> tokenizer;         // null: the checkpoint has none
  std::shared_ptr<const ChatTemplate> chat_template;  // null: none that can be used
  Status chat_template_problem;                       // why not, when there is one
  std::shared_ptr<const Module> base;
  std::string fingerprint;
};
/// `cache_dir` keeps the fingerprint between starts.
Result<LoadedBackbone> load_backbone(const DeploymentConfig& config, const std::string& cache_dir);

/// What library modules share: limits, and their lines in the daemon's log.
std::shared_ptr<LibraryRuntime> library_runtime(const DeploymentConfig& config);

EngineOptions engine_options(const DeploymentConfig& config);

}  // namespace chimera
