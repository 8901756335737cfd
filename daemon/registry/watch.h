// Drop-in directories: a module directory that appears is loaded, one that goes is retired.
//
// A half-copied directory must never be seen (reliability R9), so only renames count, because only
// a rename says "complete":
//   - a directory that is renamed into the watched one, or is there at the start, is loaded;
//   - a directory that is created there and filled in place is left alone until a module.yaml is
//     renamed into place inside it - the manifest last;
//   - a module.yaml renamed over an old one is a new version: the module is replaced.
// A directory that is renamed away or removed is retired, if its module was loaded from there.
// A module that was revoked is not loaded again from here; `chimera load` lets it in. One that was
// unloaded or replaced by hand is loaded again when it comes in by rename or has changed, but not
// because it lies here at a start or a look around (SIGHUP).
// Names that begin with "." or end in ".tmp" or ".part" are ignored. A directory that cannot be
// loaded is logged once, and tried again when it changes by rename.
//
// Thread safety: a Watcher owns its threads; its methods by one thread at a time.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "daemon/registry/registry.h"

namespace chimera {

class Watcher {
 public:
  /// What the watcher does to the registry; a seam for tests.
  struct Actions {
    std::function<Status(const std::string& dir, LoadSource source)> load;
    std::function<Status(const std::string& dir)> unload;  // not_found: nothing to do
  };
  static Actions actions_of(Registry* registry);

  /// Starts watching; every directory must exist (not_found otherwise). What is in them already
  /// is loaded in the background, in name order.
  static Result<std::unique_ptr<Watcher>> start(const std::vector<std::string>& dirs,
                                                Actions actions);
  /// Waits for the running action; what is still to do is dropped.
  ~Watcher();

  /// Watches `dirs` from now on, among them those whose watch was lost, and looks at all of them
  /// again: what is there is loaded, what is gone is retired. Modules of a directory that is no
  /// longer watched stay. Changes nothing when one of `dirs` cannot be watched.
  Status watch(const std::vector<std::string>& dirs);

 private:
  class Impl;
  explicit Watcher(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace chimera
