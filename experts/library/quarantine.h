// Libraries that crashed again and again, or ended the daemon, remembered in the state directory:
// one file each, so that lifting a quarantine is removing a file. Written durably (base/io/env.h):
// a crash of the daemon leaves the file whole or absent.
//
// Thread safety: all methods from any thread.
#pragma once

#include <optional>
#include <set>
#include <string>

#include "base/io/env.h"
#include "base/status.h"
#include "base/threads/mutex.h"
#include "experts/library/backend.h"

namespace chimera {

/// "sha256:…" of what runs: the code with its configuration.
Result<std::string> library_key(const LibrarySource& source);
/// Where the record of a key lies.
std::string quarantine_path(const std::string& state_dir, const std::string& key);

struct QuarantineRecord {
  std::string module, version, library;  // names, for people
  std::string reason;                    // of the last crash
  std::string time;                      // RFC 3339, UTC
  int crashes = 0;
};

class Quarantine {
 public:
  /// `state_dir` empty: remembered for the life of this object only.
  explicit Quarantine(std::string state_dir, Env& env = Env::system());

  /// `key`: library_key(). ok, or failed_precondition that says why it is shut out and
  /// how to let it in again. A file that cannot be read shuts out as well.
  Status check(const std::string& key, const std::string& module) const;
  /// On failure it is still remembered until the end of this process.
  Status put(const std::string& key, const QuarantineRecord& record);

 private:
  std::string path_of(const std::string& key) const;

  const std::string dir_;
  Env& env_;
  mutable Mutex mutex_;
  std::set<std::string> here_ GUARDED_BY(mutex_);
};

}  // namespace chimera
