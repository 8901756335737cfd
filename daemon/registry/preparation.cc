#include "daemon/registry/preparation.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace chimera {

Status overtaken() {
  return {Code::kUnavailable,
          "found a module of the change revoked meanwhile (expected it to stay)",
          "Ask again if it is to come in all the same"};
}

Status twice_refusal(const std::string& name, const std::string& first, const std::string& second) {
  return {Code::kAlreadyExists,
          fmt::format("module {}: found in {} and in {} (expected names to be distinct)", name,
                      first, second)};
}

CurrentModules::CurrentModules(const LoadedComposition& current)
    : modules_(current.modules.begin(), current.modules.end()) {}

bool CurrentModules::contains(const std::weak_ptr<const Module>& module) const {
  // By owner: an address may be that of a new module by now, and a lock() could be the last to let
  // go.
  return modules_.contains(module);
}

PreparedModule::PreparedModule(std::shared_ptr<const Module> module, const CurrentModules& current)
    : known_(module) {
  if (!current.contains(module)) own_ = std::move(module);
}

Preparation::Preparation(std::string fingerprint, std::optional<int64_t> top_k) {
  composition_.backbone_fingerprint = std::move(fingerprint);
  composition_.top_k = top_k;
}

Status Preparation::add(FoundModule module, bool enabled, float bias) {
  const auto known = by_name_.find(module.name);
  if (known != by_name_.end())
    return twice_refusal(module.name, entries_[known->second].found.dir, module.dir);
  CHIMERA_RETURN_IF_ERROR(check_bias(module.name, bias));
  by_name_.emplace(module.name, entries_.size());
  entries_.push_back({std::move(module), enabled, bias});
  return {};
}

std::vector<std::string> Preparation::names() const {
  std::vector<std::string> out;
  for (const Entry& entry : entries_) out.push_back(entry.found.name);
  return out;
}

Result<LoadedComposition> Preparation::finish() const {
  LoadedComposition out;
  out.composition = composition_;
  for (const Entry& entry : entries_) {
    auto module = entry.found.module.get();
    if (module == nullptr) return overtaken();
    append_module(&out, std::move(module), entry.enabled, entry.bias);
  }
  return out;
}

}  // namespace chimera
