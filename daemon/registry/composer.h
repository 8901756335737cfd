// Compositions as values: how one follows from another, what differs, what may not be.
//
// Thread safety: free functions.
#pragma once

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
};

/// |bias| of a module may not exceed this: logits of real gates stay well below, so more only
/// drowns the gate.
inline constexpr float kMaxModuleBias = 100.0f;

/// Appends a module, or puts it in the place of the one with its name.
void put_module(LoadedComposition* target, std::shared_ptr<const Module> module, bool enabled,
                float bias);
/// Takes the module `name` out. REQUIRES: it is there.
void remove_module(LoadedComposition* target, const std::string& name);

/// What somebody has to be told when `to` follows `from`, in the order of `to`.
std::vector<ChangeItem> difference(const Composition& from, const Composition& to);

/// invalid_argument for a bias that is not finite or too large.
Status check_bias(const std::string& module, float bias);
/// An absolute path without "." and ".." and trailing slashes; invalid_argument otherwise.
Result<std::string> normal_module_path(const std::string& path);
/// not_found that lists what is loaded.
Status unknown_module(const Composition& composition, const std::string& name);
/// Whether the deployment file asks for what `composition` is.
bool same_wish(const CompositionSpec& spec, const Composition& composition);

}  // namespace chimera
