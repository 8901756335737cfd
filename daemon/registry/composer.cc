#include "daemon/registry/composer.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>
#include <optional>
#include <string_view>
#include <unordered_map>

#include "base/limits.h"
#include "experts/assembly/source.h"
#include "experts/library/backend.h"

namespace chimera {
namespace {

std::string top_k_text(const std::optional<int64_t>& top_k) {
  return top_k ? std::to_string(*top_k) : "as modules and checkpoint say";
}

std::string blend_text(const Lambdas& lambda) {
  return lambda.empty() ? "as its recipe says" : lambdas_text(lambda);
}

std::string precision_text(const std::optional<Precision>& precision) {
  return precision ? kPrecisionNames.text(*precision) : "as module and deployment say";
}

std::string weight_text(const std::optional<double>& weight) {
  return weight ? fmt::format("{}", *weight) : "as its module.yaml says";
}

// What happened to a module that is in both.
void compare(const CompositionModule& from, const CompositionModule& to,
             std::vector<ChangeItem>* out) {
  if (from.digest != to.digest || from.path != to.path) {
    std::string detail = fmt::format("{} -> {}", from.version, to.version);
    if (from.digest == to.digest) detail = "same content, from another directory";
    out->push_back({ChangeAction::kReplace, to.name, std::move(detail)});
  }
  if (from.enabled != to.enabled) {
    out->push_back({to.enabled ? ChangeAction::kEnable : ChangeAction::kDisable, to.name, ""});
  }
  if (from.lambda != to.lambda) {
    out->push_back({ChangeAction::kBlend, to.name,
                    fmt::format("{} -> {}", blend_text(from.lambda), blend_text(to.lambda))});
  }
  if (from.precision != to.precision) {
    out->push_back(
        {ChangeAction::kPrecision, to.name,
         fmt::format("{} -> {}", precision_text(from.precision), precision_text(to.precision))});
  }
  if (from.weight != to.weight) {
    out->push_back({ChangeAction::kWeight, to.name,
                    fmt::format("{} -> {}", weight_text(from.weight), weight_text(to.weight))});
  }
  if (from.bias != to.bias) {
    out->push_back({ChangeAction::kBias, to.name, fmt::format("{} -> {}", from.bias, to.bias)});
  }
}

/// The entries of a composition by name, so that what compares two of them takes as long as they
/// are long. They outlive this.
class Names {
 public:
  explicit Names(const Composition& of) {
    at_.reserve(of.modules.size());
    for (size_t i = 0; i < of.modules.size(); ++i) at_.emplace(of.modules[i].name, i);
  }
  std::optional<size_t> find(const std::string& name) const {
    const auto found = at_.find(name);
    return found == at_.end() ? std::nullopt : std::optional(found->second);
  }

 private:
  std::unordered_map<std::string_view, size_t> at_;
};

std::vector<std::string> common_order(const Composition& of, const Names& other) {
  std::vector<std::string> names;
  for (const CompositionModule& m : of.modules) {
    if (other.find(m.name)) names.push_back(m.name);
  }
  return names;
}

std::vector<ChangeItem> difference(const Composition& from, const Names& from_names,
                                   const Composition& to, const Names& to_names) {
  std::vector<ChangeItem> out;
  for (const CompositionModule& m : from.modules) {
    if (!to_names.find(m.name)) out.push_back({ChangeAction::kUnload, m.name, m.version});
  }
  for (const CompositionModule& m : to.modules) {
    if (const auto before = from_names.find(m.name)) {
      compare(from.modules[*before], m, &out);
    } else {
      out.push_back(
          {ChangeAction::kLoad, m.name, m.enabled ? m.version : m.version + ", disabled"});
    }
  }
  const std::vector<std::string> order = common_order(to, from_names);
  if (order != common_order(from, to_names)) {
    out.push_back({ChangeAction::kReorder, "", fmt::format("{}", fmt::join(order, ", "))});
  }
  if (from.top_k != to.top_k) {
    out.push_back({ChangeAction::kTopK, "",
                   fmt::format("{} -> {}", top_k_text(from.top_k), top_k_text(to.top_k))});
  }
  return out;
}

/// In quarantine: nothing will start the code of this object again.
bool shut_out(const Module& module) {
  return module.library != nullptr && module.library->status().state == LibraryState::kQuarantined;
}

/// Whether `is`, of all parents or none, has what `wish` names.
bool same_blend(const Lambdas& wish, const Lambdas& is) {
  if (wish.empty()) return is.empty();
  return std::all_of(wish.begin(), wish.end(), [&](const auto& one) {
    const auto at = is.find(one.first);
    return at != is.end() && at->second == one.second;
  });
}

/// Why another object of the same content takes the place of `module`; nothing when it does not.
std::optional<std::string> restart_reason(const Module& module) {
  if (shut_out(module)) return "its library was in quarantine";
  // Nothing could be made of the parents that it knows.
  const bool lost = module.assembly != nullptr && !module.assembly->check_unchanged().ok();
  return lost ? std::optional<std::string>("its parents are back") : std::nullopt;
}

}  // namespace

bool LoadedComposition::was_revoked(const std::string& name) const {
  return std::find(revoked.begin(), revoked.end(), name) != revoked.end();
}

namespace {

/// The entry of a module that comes in, which counts no longer as revoked or set aside.
CompositionModule admit(LoadedComposition* target, const Module& module, bool enabled, float bias) {
  CompositionModule entry{
      module.name(), module.manifest.version, module.manifest.digest, module.dir,         enabled,
      bias,          module.lambda,           module.asked_precision, module.asked_weight};
  std::erase(target->revoked, entry.name);
  const auto aside = target->set_aside.find(entry.name);
  if (aside != target->set_aside.end() && aside->second == entry.digest)
    target->set_aside.erase(aside);
  return entry;
}

}  // namespace

void append_module(LoadedComposition* target, std::shared_ptr<const Module> module, bool enabled,
                   float bias) {
  target->composition.modules.push_back(admit(target, *module, enabled, bias));
  target->modules.push_back(std::move(module));
}

void put_module(LoadedComposition* target, std::shared_ptr<const Module> module, bool enabled,
                float bias) {
  auto& entries = target->composition.modules;
  const auto namesake = std::find_if(entries.begin(), entries.end(),
                                     [&](const auto& m) { return m.name == module->name(); });
  if (namesake == entries.end()) return append_module(target, std::move(module), enabled, bias);
  *namesake = admit(target, *module, enabled, bias);
  target->modules[static_cast<size_t>(namesake - entries.begin())] = std::move(module);
}

void edit_module(LoadedComposition* target, const std::string& name, const ModuleEdit& edit) {
  for (CompositionModule& module : target->composition.modules) {
    if (module.name != name) continue;
    module.enabled = edit.enabled.value_or(module.enabled);
    module.bias = edit.bias.value_or(module.bias);
  }
}

void remove_module(LoadedComposition* target, const std::string& name) {
  auto& entries = target->composition.modules;
  const auto it =
      std::find_if(entries.begin(), entries.end(), [&](const auto& m) { return m.name == name; });
  if (it == entries.end()) return;
  target->modules.erase(target->modules.begin() + (it - entries.begin()));
  entries.erase(it);
}

std::vector<ChangeItem> difference(const Composition& from, const Composition& to) {
  return difference(from, Names(from), to, Names(to));
}

void revoke_module(LoadedComposition* target, const std::string& name) {
  remove_module(target, name);
  if (!target->was_revoked(name)) target->revoked.push_back(name);
}

void set_aside_missing(const Composition& before, LoadedComposition* next) {
  const Names names(next->composition);
  for (const CompositionModule& was : before.modules) {
    const auto is = names.find(was.name);
    if (!is || next->composition.modules[*is].digest != was.digest)
      next->set_aside[was.name] = was.digest;
  }
}

std::vector<ChangeItem> difference(const LoadedComposition& from, const LoadedComposition& to) {
  const Names from_names(from.composition), to_names(to.composition);
  std::vector<ChangeItem> out = difference(from.composition, from_names, to.composition, to_names);
  for (ChangeItem& item : out) {
    if (item.action == ChangeAction::kUnload && to.was_revoked(item.module))
      item.action = ChangeAction::kRevoke;
    if (item.action == ChangeAction::kLoad && from.was_revoked(item.module))
      item.detail += ", was revoked";
  }
  for (size_t i = 0; i < to.composition.modules.size(); ++i) {
    const CompositionModule& entry = to.composition.modules[i];
    const auto before = from_names.find(entry.name);
    if (!before || from.composition.modules[*before].digest != entry.digest) continue;
    const Module* was = from.modules[*before].get();
    if (was == nullptr || was == to.modules[i].get()) continue;
    if (auto reason = restart_reason(*was)) {
      out.push_back({ChangeAction::kRestart, entry.name, std::move(*reason)});
    }
  }
  return out;
}

std::vector<std::string> disabled_modules(const Composition& composition) {
  std::vector<std::string> names;
  for (const CompositionModule& module : composition.modules) {
    if (!module.enabled) names.push_back(module.name);
  }
  return names;
}

Status revoked_refusal(const std::string& what, const std::string& module) {
  return {Code::kFailedPrecondition,
          fmt::format("{}: module {} was revoked (expected none that was)", what, module),
          "`chimera load PATH` lets it in again; `chimera epochs` lists those without it"};
}

Status set_aside_refusal(const std::string& what, const std::string& module) {
  return {Code::kFailedPrecondition,
          fmt::format("{}: module {} was unloaded or replaced by hand (expected one that was not)",
                      what, module),
          "`chimera load PATH` loads it again, and so does moving it away and back, or another "
          "version of it"};
}

Status check_bias(const std::string& module, float bias) {
  if (std::isfinite(bias) && std::abs(bias) <= kMaxBias) return {};
  return {Code::kInvalidArgument, fmt::format("module {}: bias: found {} (expected -{}..{})",
                                              module, bias, kMaxBias, kMaxBias)};
}

Result<std::string> normal_module_path(const std::string& path) {
  if (path.empty() || path.front() != '/' || path.size() > 4095 ||
      path.find('\0') != std::string::npos) {
    return Status(Code::kInvalidArgument,
                  fmt::format("path: found {} (expected the absolute path of a module directory)",
                              path.empty() ? "nothing" : path.substr(0, 200)));
  }
  std::string normal = std::filesystem::path(path).lexically_normal().string();
  while (normal.size() > 1 && normal.back() == '/') normal.pop_back();
  return normal;
}

Status unknown_module(const Composition& composition, const std::string& name) {
  std::vector<std::string> names;
  for (const CompositionModule& m : composition.modules) names.push_back(m.name);
  const std::string loaded =
      names.empty() ? "a loaded module; none is loaded"
                    : fmt::format("one of the loaded modules: {}", fmt::join(names, ", "));
  return {Code::kNotFound,
          fmt::format("module: found {} (expected {})", name.empty() ? "no name" : name, loaded)};
}

bool same_wish(const CompositionSpec& spec, const Composition& composition) {
  if (spec.top_k != composition.top_k) return false;
  return std::equal(spec.modules.begin(), spec.modules.end(), composition.modules.begin(),
                    composition.modules.end(), [](const auto& wish, const CompositionModule& is) {
                      return wish.path == is.path && wish.enabled == is.enabled &&
                             wish.bias == is.bias && same_blend(wish.lambda, is.lambda) &&
                             wish.precision == is.precision && wish.weight == is.weight;
                    });
}

}  // namespace chimera
