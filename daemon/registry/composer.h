// Compositions as values: how one follows from another, what differs, what may not be.
//
// Thread safety: free functions.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <vector>

#include "daemon/config/config.h"
#include "daemon/registry/registry.h"
#include "router/composition.h"

namespace chimera {

/// A composition with the modules it names, in its order.
struct LoadedComposition {
  Composition composition;
  std::vector<std::shared_ptr<const Module>> modules;
  /// Modules revoked and not loaded again since; travels along from one composition to the next.
  std::vector<std::string> revoked;
  /// Digest, by name, of what a person unloaded or replaced and nobody loaded since; travels along,
  /// too. It may lie in a watched directory.
  std::map<std::string, std::string> set_aside;

  bool was_revoked(const std::string& name) const;
};

/// Appends a module, or puts it in the place of the one with its name; it no longer counts as
/// revoked or set aside.
void put_module(LoadedComposition* target, std::shared_ptr<const Module> module, bool enabled,
                float bias);
/// The same of a module whose name is not in it.
void append_module(LoadedComposition* target, std::shared_ptr<const Module> module, bool enabled,
                   float bias);
/// Sets what `edit` sets of the module `name`, if it is there.
void edit_module(LoadedComposition* target, const std::string& name, const ModuleEdit& edit);
/// Takes the module `name` out. REQUIRES: it is there.
void remove_module(LoadedComposition* target, const std::string& name);

/// As remove_module; the name counts as revoked until it is loaded again.
void revoke_module(LoadedComposition* target, const std::string& name);

/// Sets aside what `before` has and `next` has not, because a person said so.
void set_aside_missing(const Composition& before, LoadedComposition* next);

/// What somebody has to be told when `to` follows `from`, in the order of `to`.
std::vector<ChangeItem> difference(const Composition& from, const Composition& to);
/// The same of what is loaded: a module that was revoked and is let in again is told as such, one
/// that was withdrawn by revocation as `revoke`, and one whose library was shut out for crashing
/// and is now a new one of the same content as `restart`, and so is an assembly whose parents were
/// changed on disk meanwhile and are what they were.
std::vector<ChangeItem> difference(const LoadedComposition& from, const LoadedComposition& to);
/// Modules that are loaded and not used, by name.
std::vector<std::string> disabled_modules(const Composition& composition);
/// failed_precondition that names `module` as revoked.
Status revoked_refusal(const std::string& what, const std::string& module);
/// The same for one that was set aside.
Status set_aside_refusal(const std::string& what, const std::string& module);

/// invalid_argument for a bias that is not finite or too large.
Status check_bias(const std::string& module, float bias);
/// An absolute path without "." and ".." and trailing slashes; invalid_argument otherwise.
Result<std::string> normal_module_path(const std::string& path);
/// not_found that lists what is loaded.
Status unknown_module(const Composition& composition, const std::string& name);
/// Whether the deployment file asks for what `composition` is.
bool same_wish(const CompositionSpec& spec, const Composition& composition);

}  // namespace chimera
