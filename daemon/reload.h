// SIGHUP: what of a deployment file can be taken over while the daemon serves.
//
// The watch directories can: the list becomes the file's, and each is looked at again. So can what
// the clients file and the directory of trusted keys say, which are read again. Everything else
// needs a restart, but for the composition, which `chimera apply` puts in place; both are said in
// the log. A file with problems changes nothing.
//
// Thread safety: from main, one reload at a time.
#pragma once

#include <string>
#include <vector>

#include "daemon/config/config.h"
#include "daemon/guard.h"
#include "daemon/registry/watch.h"

namespace chimera {

/// Keys whose values differ between two deployments and take effect at the next start only, as
/// dotted names in the order of the file; without `watch` and the composition.
std::vector<std::string> keys_that_need_a_restart(const DeploymentConfig& running,
                                                  const DeploymentConfig& read);

/// Reads `running->source` again, takes over what it can and logs the rest. `running` is what the
/// daemon runs with, afterwards too.
void reload(DeploymentConfig* running, Watcher* watcher, Guard& guard);

}  // namespace chimera
