// A composition in preparation, while the current one goes on and may lose a module.
//
// Preparing takes as long as loading does. What is loaded for it is kept; a module that is current
// already is only remembered, so that a revocation which comes meanwhile lets go of its memory when
// it is acknowledged and not when the preparation ends.
//
// Thread safety: none; one per change.
#pragma once

#include <memory>
#include <optional>
#include <set>
#include <string>
#include <unordered_map>
#include <vector>

#include "daemon/registry/composer.h"

namespace chimera {

/// Tells whether modules are among those of a composition, without keeping these alive.
class CurrentModules {
 public:
  explicit CurrentModules(const LoadedComposition& current);
  bool contains(const std::weak_ptr<const Module>& module) const;

 private:
  std::set<std::weak_ptr<const Module>, std::owner_less<>> modules_;
};

/// A module kept alive unless it was current when it was put in here.
class PreparedModule {
 public:
  PreparedModule(std::shared_ptr<const Module> module, const CurrentModules& current);
  /// Null when it was current and is gone.
  std::shared_ptr<const Module> get() const { return known_.lock(); }

 private:
  std::weak_ptr<const Module> known_;
  std::shared_ptr<const Module> own_;
};

/// The same with what else a preparation needs to know of it.
struct FoundModule {
  FoundModule(const std::shared_ptr<const Module>& found, const CurrentModules& current)
      : name(found->name()),
        dir(found->dir),
        version(found->manifest.version),
        digest(found->manifest.digest),
        module(found, current) {}
  std::string name, dir, version, digest;
  PreparedModule module;
};

class Preparation {
 public:
  /// Of an empty composition of the backbone `fingerprint`.
  Preparation(std::string fingerprint, std::optional<int64_t> top_k);

  /// already_exists when a module of that name is in, invalid_argument for an impossible bias.
  Status add(FoundModule module, bool enabled, float bias);
  /// unavailable when one of the modules that were current has gone meanwhile.
  Result<LoadedComposition> finish() const;
  /// Names of the modules that are in.
  std::vector<std::string> names() const;

 private:
  struct Entry {
    FoundModule found;
    bool enabled = true;
    float bias = 0.0f;
  };
  Composition composition_;  // entries_ are put into it by finish()
  std::vector<Entry> entries_;
  std::unordered_map<std::string, size_t> by_name_;  // of entries_
};

/// Two modules of one name, with their directories.
Status twice_refusal(const std::string& name, const std::string& first, const std::string& second);
/// A change relied on a module that was taken out since.
Status overtaken();

}  // namespace chimera
