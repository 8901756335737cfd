// What `plan` and `apply` are asked for: a composition, or a whole deployment file whose
// composition is meant and whose rest is compared with what runs.
//
// Thread safety: free functions over values; reading a checkpoint for its fingerprint takes as long
// as the disk does.
#pragma once

#include <string>
#include <vector>

#include "base/status.h"
#include "clients/wire/protocol.h"
#include "daemon/config/config.h"

namespace chimera {

/// A key of a deployment that takes effect when the daemon starts, with what the file says and what
/// runs.
struct RestartNote {
  std::string key, wanted, running;
};

struct ReadWish {
  CompositionSpec composition;
  std::string backbone;              // path that the deployment names; empty: none was given
  std::vector<RestartNote> restart;  // not applied: needs a restart
};

/// Problems name the key by its whole path ("composition.modules[0].bias: …"), not a place in the
/// JSON, which nobody wrote by hand. `running` has its defaults filled in.
Result<ReadWish> read_wish(const wire::Wish& wish, const DeploymentConfig& running);

/// Keys that differ between two deployments, apart from composition, backbone.path and `watch`
/// (which a reload takes over); in the order of the file.
std::vector<RestartNote> restart_notes(const DeploymentConfig& wanted,
                                       const DeploymentConfig& running);
/// The keys that restart_notes compares.
std::vector<std::string> compared_keys();

/// Ok when `path` is empty, the running backbone's directory or one of the same fingerprint;
/// failed_precondition otherwise.
Status check_backbone(const std::string& path, const DeploymentConfig& running,
                      const std::string& fingerprint);

}  // namespace chimera
