// What a composition would change, need and be refused for: by manifests and headers, or by loading
// and probing all of it.
#include <chrono>
#include <unordered_map>

#include "daemon/registry/impl.h"
#include "router/top_k.h"

namespace chimera {
namespace {

// For an apply that somebody asks for who has read what the plan says.
constexpr std::chrono::minutes kKept{2};

}  // namespace

PlanReport Registry::Impl::plan(const CompositionSpec& spec) {
  KeptModules::Plan under_way(&options.loader->kept());
  KeptModules::Modules fresh;
  PlanReport report = plan(spec, &fresh);
  if (!report.refusals.empty()) fresh.clear();
  under_way.keep(std::move(fresh), kKept);
  return report;
}

PlanReport Registry::Impl::plan(const CompositionSpec& spec, KeptModules::Modules* fresh) {
  PlanReport report;
  if (Status beside = no_change_beside_canary(); !beside.ok()) report.refusals.push_back(beside);
  const Result<LoadedComposition> next = prepare(spec, nullptr, &report.refusals).finish();
  if (!next.ok()) {
    report.refusals.push_back(next.status());
    return report;
  }
  const Current from = current();
  report.changes = difference(from.loaded, *next);
  report.composition = next->composition.digest();
  const CurrentModules loaded(from.loaded);
  for (const auto& module : next->modules) {
    if (loaded.contains(module)) continue;
    report.memory_bytes += static_cast<int64_t>(module->resident_bytes());
    fresh->push_back(module);
  }
  const auto table =
      options.loader->builder().build(from.epoch + 1, next->composition, next->modules);
  if (table.ok()) {
    report.notes = (*table)->notes();
  } else {
    report.refusals.push_back(table.status());
  }
  return report;
}

PlanReport Registry::Impl::outline(const CompositionSpec& spec) const {
  PlanReport report;
  if (Status beside = no_change_beside_canary(); !beside.ok()) report.refusals.push_back(beside);
  const Current from = current();
  const CurrentModules loaded(from.loaded);
  LoadedComposition next;  // with null for what is not in memory
  next.composition.backbone_fingerprint = options.loader->fingerprint();
  next.composition.top_k = spec.top_k;
  std::vector<FittedModule> fitted;
  std::unordered_map<std::string, std::string> dirs;  // by name, of what is in `next`
  uint64_t resident = 0;                              // of those that come in
  uint64_t missing = 0;                               // of those among them not in memory yet
  const ModuleLoader::Accept accept = options.loader->new_accept();
  const auto add = [&](const CompositionSpec::ModuleSpec& wish) -> Status {
    const Result<std::string> dir = normal_module_path(wish.path);
    if (!dir.ok()) return dir.status();
    Result<ModuleLoader::Outline> found = options.loader->outline(*dir, wish.lambda, accept);
    if (!found.ok()) return found.status();
    const Manifest& manifest = *found->manifest;
    const auto namesake = dirs.find(manifest.name);
    if (namesake != dirs.end()) return twice_refusal(manifest.name, namesake->second, *dir);
    CHIMERA_RETURN_IF_ERROR(check_bias(manifest.name, wish.bias));
    if (found->loaded == nullptr) {
      CHIMERA_RETURN_IF_ERROR(options.loader->check_room(manifest, missing + found->size.loading));
      missing += found->size.resident;
    }
    if (found->loaded == nullptr || !loaded.contains(found->loaded))
      resident += found->size.resident;
    if (wish.enabled) fitted.push_back({manifest.name, manifest.fitted_top_k()});
    dirs.emplace(manifest.name, *dir);
    next.composition.modules.push_back({manifest.name, manifest.version, manifest.digest, *dir,
                                        wish.enabled, wish.bias, std::move(found->lambda)});
    next.modules.push_back(std::move(found->loaded));
    return {};
  };
  for (const CompositionSpec::ModuleSpec& wish : spec.modules) {
    Status status = add(wish);
    if (!status.ok()) report.refusals.push_back(std::move(status));
  }
  report.changes = difference(from.loaded, next);
  report.composition = next.composition.digest();
  report.memory_bytes = static_cast<int64_t>(resident);
  report.notes = top_k_notes(spec.top_k, fitted, default_top_k(options.loader->config()));
  return report;
}

PlanReport Registry::outline(const CompositionSpec& spec) const { return impl_->outline(spec); }

PlanReport Registry::plan(const CompositionSpec& spec) {
  Result<PlanReport> report = impl_->loads.run(
      [impl = impl_.get(), spec]() -> Result<PlanReport> { return impl->plan(spec); });
  if (report.ok()) return std::move(*report);
  PlanReport refused;
  refused.refusals.push_back(report.status());
  return refused;
}

}  // namespace chimera
