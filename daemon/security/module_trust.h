// ModuleTrust: which modules a deployment lets in (`trust:`): signed by a key that it knows, and
// not older than it says, under the directories that it names, where nobody else can write.
//
// The signature module.yaml.minisig beside module.yaml covers the manifest, which names the SHA-256
// of every file, which loaders compare with the very bytes that they use. Its trusted comment may
// end its time ("expires:2027-01-31"). Keys are the *.pub of a directory in minisign's format;
// those in its folder `revoked` sign nothing any more.
//
// Thread safety: check() from any thread, what check_together() gives from one at a time, which
// ends before this; reload() from one at a time.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/minisign/minisign.h"
#include "base/status.h"
#include "base/threads/mutex.h"
#include "daemon/security/writers.h"
#include "experts/module/manifest.h"

namespace chimera {

struct TrustOptions {
  std::vector<std::string> roots;              // directories; empty: modules may lie anywhere
  std::string keys;                            // directory; empty: none
  bool require_signed = false;                 // else signatures are not looked at
  std::map<std::string, std::string> minimum;  // module -> version
};

class ModuleTrust {
 public:
  static Result<std::unique_ptr<ModuleTrust>> open(TrustOptions options);

  /// Ok when the module of `dir` with that manifest may be used: permission_denied naming it and
  /// the reason otherwise (unsigned, unknown key, revoked key, expired, another content, too old).
  Status check(const std::string& dir, const Manifest& manifest) const {
    return check(dir, manifest, nullptr);
  }
  /// check() for one look at many modules: what lies above several of them is looked at once.
  std::function<Status(const std::string& dir, const Manifest& manifest)> check_together() const;
  /// Reads the keys again; on failure those there were stay.
  Status reload();

 private:
  struct Keys {
    std::vector<minisign::PublicKey> good, revoked;
  };
  explicit ModuleTrust(TrustOptions options) : options_(std::move(options)) {}
  Status check(const std::string& dir, const Manifest& manifest, KnownPlaces* known) const;
  Status check_place(const std::string& dir, const Manifest& manifest, KnownPlaces* known) const;
  Status check_signature(const std::string& dir, const Manifest& manifest) const;
  std::shared_ptr<const Keys> keys() const;

  const TrustOptions options_;
  mutable Mutex mutex_;
  std::shared_ptr<const Keys> keys_ GUARDED_BY(mutex_);
};

/// Whether version `x` is older than `y`: numbers between dots are compared as such, what follows a
/// hyphen makes it older than without (semver.org 2.0, item 11, as far as that).
bool is_older(const std::string& x, const std::string& y);

}  // namespace chimera
