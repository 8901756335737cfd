// What a composition would change, need and be refused for: by manifests and headers, or by loading
// and probing all of it.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <unordered_map>

#include "daemon/registry/impl.h"
#include "router/shadow/shadow_shares.h"
#include "router/top_k.h"

namespace chimera {
namespace {

// For an apply that somebody asks for who has read what the plan says.
constexpr std::chrono::minutes kKept{2};
// Of modules that are not loaded: what a plan reads to predict shares. Beyond, loading tells.
constexpr uint64_t kMostGateBytes = uint64_t{64} << 20;

uint64_t bytes_of_gates(const Module& module) {
  uint64_t floats = 0;
  for (const auto& [layer, part] : module.layers) floats += part.gate_weight.size();
  return floats * sizeof(float);
}

/// A bundle that a composition uses.
struct UsedBundle {
  ModuleLoader::Placed placed;
  double weight = 1.0;
  std::shared_ptr<const Module> loaded;  // null: it is not
};
using Bundles = std::vector<UsedBundle>;

/// The bundles that a composition uses, in its order.
Bundles bundles_of(const LoadedComposition& loaded) {
  Bundles out;
  for (size_t i = 0; i < loaded.modules.size(); ++i) {
    const std::shared_ptr<const Module>& module = loaded.modules[i];
    if (loaded.composition.modules[i].enabled && module->bundle != nullptr)
      out.push_back({{module->dir, std::shared_ptr<const Manifest>(module, &module->manifest)},
                     module->bundle->weight(),
                     module});
  }
  return out;
}

/// What the backbone of `next` together takes, where it is not the one in use. Those that cannot be
/// read are refused by whoever loads them.
MadeBytes bytes_together(const ModuleLoader& loader, const Bundles& next, const Bundles& now) {
  const auto same = [](const UsedBundle& a, const UsedBundle& b) {
    return a.placed.second->digest == b.placed.second->digest && a.weight == b.weight;
  };
  if (std::equal(next.begin(), next.end(), now.begin(), now.end(), same)) return {};
  std::vector<ModuleLoader::Placed> placed;
  for (const UsedBundle& bundle : next) placed.push_back(bundle.placed);
  const Result<MadeBytes> bytes = loader.average_bytes(placed);
  return bytes.ok() ? *bytes : MadeBytes{};
}

/// Whether what they are together is made already, for the composition in use or for a request.
bool made_together(const ModuleLoader& loader, const Bundles& bundles) {
  std::vector<std::shared_ptr<const Module>> modules;
  for (const UsedBundle& bundle : bundles) {
    if (bundle.loaded == nullptr) return false;
    modules.push_back(bundle.loaded);
  }
  return loader.builder().averages()->has(modules);
}

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
    fresh->push_back(module);
    // Adapters that are read on use have the memory that is set aside for all of them.
    if (module->adapter_source != nullptr) continue;
    report.memory_bytes += static_cast<int64_t>(module->resident_bytes());
  }
  const auto table =
      options.loader->builder().build(from.epoch + 1, next->composition, next->modules);
  if (table.ok()) {
    // Made and let go of again: nobody knows before whether there is room, and all numbers fit.
    const std::shared_ptr<const ActiveSet> used = used_of(**table);
    if (Status made = used->average ? used->average->wait(AverageFor::kComposition) : Status();
        !made.ok())
      report.refusals.push_back(std::move(made));
    report.memory_bytes += static_cast<int64_t>(
        bytes_together(*options.loader, bundles_of(*next), bundles_of(from.loaded)).resident);
    report.notes = (*table)->notes();
    report.experts_bytes = experts_change(**table);
    predict_shares(*next, options.engine->gate_samples(), &report);
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
  LoadedComposition next;    // with null for what is not in memory
  LoadedComposition routed;  // the same with gates in their place
  next.composition.backbone_fingerprint = options.loader->fingerprint();
  next.composition.top_k = spec.top_k;
  std::vector<FittedModule> fitted;
  Bundles bundles;  // that are used
  // Gates are read for predictions alone.
  const GateSamples::Copy samples = options.engine->gate_samples();
  bool gates_known = !samples.layers.empty() || options.loader->residency() != nullptr;
  uint64_t gate_bytes = 0;
  std::unordered_map<std::string, std::string> dirs;  // by name, of what is in `next`
  uint64_t resident = 0;                              // of those that come in
  uint64_t missing = 0;                               // of those among them not in memory yet
  const ModuleLoader::Accept accept = options.loader->new_accept();
  const auto add = [&](const CompositionSpec::ModuleSpec& wish) -> Status {
    const Result<std::string> dir = normal_module_path(wish.path);
    if (!dir.ok()) return dir.status();
    Result<ModuleLoader::Outline> found =
        options.loader->outline(*dir, {wish.lambda, wish.precision, wish.weight}, accept);
    if (!found.ok()) return found.status();
    const Manifest& manifest = *found->manifest;
    const auto namesake = dirs.find(manifest.name);
    if (namesake != dirs.end()) return twice_refusal(manifest.name, namesake->second, *dir);
    CHIMERA_RETURN_IF_ERROR(check_bias(manifest.name, wish.bias));
    if (found->loaded == nullptr) {
      CHIMERA_RETURN_IF_ERROR(
          options.loader->check_room("module " + manifest.name, missing + found->size.loading));
      missing += found->size.resident;
    }
    if (found->loaded == nullptr || !loaded.contains(found->loaded))
      resident += found->size.resident;
    if (wish.enabled) fitted.push_back({manifest.name, manifest.fitted_top_k()});
    if (wish.enabled && manifest.kind == ModuleKind::kBundle)
      bundles.push_back(
          {{*dir, found->manifest}, wish.weight.value_or(manifest.shared->weight), found->loaded});
    dirs.emplace(manifest.name, *dir);
    next.composition.modules.push_back({manifest.name, manifest.version, manifest.digest, *dir,
                                        wish.enabled, wish.bias, std::move(found->lambda),
                                        wish.precision, wish.weight});
    routed.modules.push_back(found->loaded);
    if (found->loaded == nullptr && wish.enabled && gates_known) {
      // What is wrong with what they hold is the plan's to tell that loads it.
      Result<std::shared_ptr<const Module>> gates = options.loader->gates_of(*dir, manifest);
      if (gates.ok() && *gates != nullptr) gate_bytes += bytes_of_gates(**gates);
      gates_known = gates.ok() && *gates != nullptr && gate_bytes <= kMostGateBytes;
      if (gates_known) routed.modules.back() = std::move(*gates);
    }
    next.modules.push_back(std::move(found->loaded));
    return {};
  };
  for (const CompositionSpec::ModuleSpec& wish : spec.modules) {
    Status status = add(wish);
    if (!status.ok()) report.refusals.push_back(std::move(status));
  }
  report.changes = difference(from.loaded, next);
  report.composition = next.composition.digest();
  const MadeBytes together = bytes_together(*options.loader, bundles, bundles_of(from.loaded));
  if (together.making > 0 && !made_together(*options.loader, bundles)) {
    Status room = options.loader->check_room(
        fmt::format("the average of {} bundles", bundles.size()), missing + together.making);
    if (!room.ok()) report.refusals.push_back(std::move(room));
  }
  resident += together.resident;
  report.memory_bytes = static_cast<int64_t>(resident);
  report.notes = top_k_notes(spec.top_k, fitted, default_top_k(options.loader->config()));
  routed.composition = next.composition;
  if (gates_known) {
    predict_shares(routed, samples, &report);
    if (options.loader->residency() == nullptr) return report;
    // Its experts are counted; no backbone is made for it.
    const auto table = options.loader->builder().build(0, routed.composition, routed.modules);
    if (table.ok()) report.experts_bytes = experts_change(**table);
  }
  return report;
}

int64_t Registry::Impl::experts_change(const RoutingTable& next) const {
  const ExpertResidency* const residency = options.loader->residency();
  if (residency == nullptr) return 0;
  const auto used = [&](const RoutingTable& table) {
    const auto active = table.layout()->active(table.layout()->unnamed());
    return static_cast<int64_t>(residency->bytes_of(backbone_experts(*active)));
  };
  return used(next) - used(*options.engine->table());
}

void Registry::Impl::predict_shares(const LoadedComposition& next, const GateSamples::Copy& samples,
                                    PlanReport* report) const {
  if (!report->refusals.empty() || samples.layers.empty()) return;
  // Routing alone is looked at: no backbone is made for it.
  const auto table = options.loader->builder().build(0, next.composition, next.modules);
  if (!table.ok()) return;
  const auto then = shadow_shares(*table, samples);
  auto before = shadow_shares(options.engine->table(), samples);
  if (!then.ok() || !before.ok()) return;
  report->share_samples = static_cast<int64_t>(samples.layers.size());
  for (const auto& module : (*table)->modules()) {
    const auto share = then->find(module->name());
    if (share == then->end()) continue;
    const auto was = before->extract(module->name());
    report->shares.push_back({module->name(), was.empty() ? 0.0 : was.mapped(), share->second});
  }
  for (const auto& [name, share] : *before) report->shares.push_back({name, share, 0.0});
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
