#include "daemon/registry/registry.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log/log.h"
#include "base/threads/background.h"
#include "daemon/registry/impl.h"

namespace chimera {
namespace {

ModuleStatus describe(const Manifest& manifest, ModuleState state) {
  ModuleStatus status;
  status.name = manifest.name;
  status.version = manifest.version;
  status.domain = manifest.domain;
  status.description = manifest.description;
  status.digest = manifest.digest;
  status.license = manifest.license;
  status.attach = manifest.attach;
  status.top_k = manifest.fitted_top_k();
  status.kind = manifest.kind;
  status.state = state;
  return status;
}

ModuleStatus describe(const Module& module, ModuleState state) {
  ModuleStatus status = describe(module.manifest, state);
  status.experts = module.expert_count();
  status.resident_bytes = module.resident_bytes();
  if (module.library != nullptr) {
    status.library = {module.library->isolation(), module.library->info(),
                      module.library->status()};
  }
  return status;
}

}  // namespace

Registry::Impl::Impl(Options o, FirstEpoch first) : options(o) {
  const MutexLock lock(state_mutex);
  now = {first.epoch, std::move(first.loaded), first.place};
}

Result<std::shared_ptr<const Module>> Registry::Impl::load_beside_streams(const std::string& dir) {
  const BackgroundScope background;
  return options.loader->load(dir);
}

Registry::Impl::Current Registry::Impl::current() const {
  const MutexLock lock(state_mutex);
  return now;
}

Registry::Impl::Basis Registry::Impl::basis() const {
  const Current is = current();
  return {is.epoch, is.loaded.composition, CurrentModules(is.loaded), is.loaded.revoked,
          is.loaded.set_aside};
}

Preparation Registry::Impl::prepare(Basis basis, const CompositionSpec& spec,
                                    std::vector<Status>* refusals) {
  Preparation next(std::move(basis.modules), options.loader->fingerprint(), spec.top_k);
  for (const CompositionSpec::ModuleSpec& wish : spec.modules) {
    const Result<std::string> dir = normal_module_path(wish.path);
    if (!dir.ok()) {
      refusals->push_back(dir.status());
      continue;
    }
    Result<std::shared_ptr<const Module>> module = load_beside_streams(*dir);
    Status status = module.status();
    if (status.ok()) status = next.add(std::move(*module), wish.enabled, wish.bias);
    if (!status.ok()) refusals->push_back(std::move(status));
  }
  return next;
}

Result<Preparation> Registry::Impl::prepare(Basis basis, const EpochRecord& record) {
  const std::string& fingerprint = options.loader->fingerprint();
  if (record.composition.backbone_fingerprint != fingerprint) {
    return Status(Code::kFailedPrecondition,
                  fmt::format("epoch {}: found backbone {} (expected {})", record.epoch,
                              record.composition.backbone_fingerprint, fingerprint),
                  "It belongs to another backbone; choose a later epoch");
  }
  for (const CompositionModule& wanted : record.composition.modules) {
    const auto& revoked = basis.revoked;
    if (std::find(revoked.begin(), revoked.end(), wanted.name) == revoked.end()) continue;
    return revoked_refusal(fmt::format("rollback: epoch {}", record.epoch), wanted.name);
  }
  Preparation next(std::move(basis.modules), fingerprint, record.composition.top_k);
  std::vector<Status> refusals;
  for (const CompositionModule& wanted : record.composition.modules) {
    const std::string context = fmt::format("epoch {}: module {}", record.epoch, wanted.name);
    Result<std::shared_ptr<const Module>> module = load_beside_streams(wanted.path);
    Status status = module.status();
    if (!status.ok()) {
      status = status.with_context(context);
    } else if ((*module)->manifest.digest != wanted.digest) {
      status = {Code::kFailedPrecondition,
                fmt::format("{}: {}: found version {}, {} (expected {}, {})", context, wanted.path,
                            (*module)->manifest.version, (*module)->manifest.digest, wanted.version,
                            wanted.digest),
                "Put the recorded version back into that directory"};
    } else {
      status = next.add(std::move(*module), wanted.enabled, wanted.bias);
    }
    if (!status.ok()) refusals.push_back(std::move(status));
  }
  if (!refusals.empty()) return join(refusals);
  return next;
}

Result<EpochRecord> Registry::Impl::find_record(std::optional<uint64_t> epoch) const {
  const std::vector<EpochRecord> history =
      epoch ? options.store->history() : options.store->history_of(options.loader->fingerprint());
  const Current is = current();
  for (auto it = history.rbegin(); it != history.rend(); ++it) {
    // Without an epoch each rollback goes one step further back, also from where one led to.
    if (epoch ? it->epoch == *epoch
              : it->epoch < is.place && it->composition != is.loaded.composition) {
      return *it;
    }
  }
  if (!epoch) {
    return Status(Code::kFailedPrecondition,
                  "rollback: found no earlier composition (expected one in the history)");
  }
  return Status(Code::kNotFound,
                history.empty()
                    ? fmt::format("epoch: found {} (expected a recorded one; none is)", *epoch)
                    : fmt::format("epoch: found {} (expected a recorded one in {}..{})", *epoch,
                                  history.front().epoch, history.back().epoch),
                "`chimera epochs` lists them");
}

Status Registry::Impl::check_unasked(const Basis& from, const std::string& dir, LoadSource source) {
  const Result<Manifest> manifest = read_manifest(dir);
  if (!manifest.ok()) return {};  // the loader says why
  const std::string& name = manifest->name;
  if (std::find(from.revoked.begin(), from.revoked.end(), name) != from.revoked.end()) {
    return revoked_refusal(dir, name);
  }
  const auto aside = from.set_aside.find(name);
  const bool unchanged = aside != from.set_aside.end() && aside->second == manifest->digest;
  return source == LoadSource::kScan && unchanged ? set_aside_refusal(dir, name) : Status();
}

Result<ChangeReport> Registry::Impl::load(const LoadArgs& args) {
  const Result<std::string> dir = normal_module_path(args.path);
  if (!dir.ok()) return dir.status();
  const Basis from = basis();
  const bool asked = args.source == LoadSource::kPerson;
  if (!asked) CHIMERA_RETURN_IF_ERROR(check_unasked(from, *dir, args.source));
  Result<std::shared_ptr<const Module>> module = load_beside_streams(*dir);
  if (!module.ok()) return module.status();
  const std::string name = (*module)->name();
  if (!args.name.empty() && args.name != name) {
    return Status(
        Code::kInvalidArgument,
        fmt::format("name: found {} (expected {}, as {}/module.yaml says)", args.name, name, *dir));
  }
  const CompositionModule* before = from.composition.find(name);
  const bool enabled = args.enabled.value_or(before == nullptr || before->enabled);
  const float bias = args.bias.value_or(before == nullptr ? 0.0f : before->bias);
  CHIMERA_RETURN_IF_ERROR(check_bias(name, bias));
  const PreparedModule prepared(std::move(*module), from.modules);
  const auto put = [&](LoadedComposition* next) -> Status {
    auto held = prepared.get();
    if (held == nullptr) return overtaken();
    put_module(next, std::move(held), enabled, bias);
    if (asked) set_aside_missing(from.composition, next);
    return {};
  };
  return commit(from.epoch, put, args.in_flight);
}

PlanReport Registry::Impl::plan(const CompositionSpec& spec) {
  PlanReport report;
  const Basis from = basis();
  const Result<LoadedComposition> next = prepare(from, spec, &report.refusals).finish();
  if (!next.ok()) {
    report.refusals.push_back(next.status());
    return report;
  }
  report.changes = difference(current().loaded, *next);
  report.composition = next->composition.digest();
  for (const auto& module : next->modules) {
    if (!from.modules.contains(module)) {
      report.memory_bytes += static_cast<int64_t>(module->resident_bytes());
    }
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

Registry::Registry(Options options, FirstEpoch first)
    : impl_(std::make_unique<Impl>(options, std::move(first))) {}
Registry::~Registry() = default;

void Registry::stop() {
  impl_->stopping = true;
  impl_->worker.stop();
}

Result<ChangeReport> Registry::load(const LoadArgs& args) {
  return impl_->worker.run([impl = impl_.get(), args] { return impl->load(args); });
}

Result<ChangeReport> Registry::unload(const std::string& name) {
  return impl_->worker.run([impl = impl_.get(), name]() -> Result<ChangeReport> {
    const auto remove = [&](LoadedComposition* next) -> Status {
      if (next->composition.find(name) == nullptr) return unknown_module(next->composition, name);
      const Composition before = next->composition;
      remove_module(next, name);
      set_aside_missing(before, next);
      return {};
    };
    return impl->commit(impl->basis().epoch, remove, InFlight::kPin);
  });
}

Result<ChangeReport> Registry::unload_from(const std::string& path) {
  return impl_->worker.run([impl = impl_.get(), path]() -> Result<ChangeReport> {
    const auto remove = [&](LoadedComposition* next) -> Status {
      for (const CompositionModule& module : next->composition.modules) {
        if (module.path != path) continue;
        remove_module(next, std::string(module.name));
        return {};
      }
      return {Code::kNotFound, "module: found none loaded from " + path};
    };
    return impl->commit(impl->basis().epoch, remove, InFlight::kPin);
  });
}

Result<ChangeReport> Registry::revoke(const std::string& name) { return impl_->revoke(name); }

Result<ChangeReport> Registry::set_bias(const std::string& name, float value) {
  return impl_->worker.run([impl = impl_.get(), name, value]() -> Result<ChangeReport> {
    const auto set = [&](LoadedComposition* next) -> Status {
      if (next->composition.find(name) == nullptr) return unknown_module(next->composition, name);
      CHIMERA_RETURN_IF_ERROR(check_bias(name, value));
      for (CompositionModule& module : next->composition.modules) {
        if (module.name == name) module.bias = value;
      }
      return {};
    };
    return impl->commit(impl->basis().epoch, set, InFlight::kPin);
  });
}

Result<ChangeReport> Registry::set_enabled(const std::string& name, bool enabled) {
  return impl_->worker.run([impl = impl_.get(), name, enabled]() -> Result<ChangeReport> {
    const auto set = [&](LoadedComposition* next) -> Status {
      if (next->composition.find(name) == nullptr) return unknown_module(next->composition, name);
      for (CompositionModule& module : next->composition.modules) {
        if (module.name == name) module.enabled = enabled;
      }
      return {};
    };
    return impl->commit(impl->basis().epoch, set, InFlight::kPin);
  });
}

PlanReport Registry::plan(const CompositionSpec& spec) {
  Result<PlanReport> report = impl_->worker.run(
      [impl = impl_.get(), spec]() -> Result<PlanReport> { return impl->plan(spec); });
  if (report.ok()) return std::move(*report);
  PlanReport refused;
  refused.refusals.push_back(report.status());
  return refused;
}

Result<ChangeReport> Registry::Impl::put_in_place(uint64_t basis, const Preparation& prepared,
                                                  InFlight in_flight, uint64_t origin) {
  const auto put = [&](LoadedComposition* next) -> Status {
    Result<LoadedComposition> finished = prepared.finish();
    if (!finished.ok()) return finished.status();
    for (const std::string& name : next->revoked) {
      if (finished->composition.find(name) == nullptr) finished->revoked.push_back(name);
    }
    for (const auto& [name, digest] : next->set_aside) {
      const CompositionModule* back = finished->composition.find(name);
      if (back == nullptr || back->digest != digest) finished->set_aside.emplace(name, digest);
    }
    set_aside_missing(next->composition, &*finished);
    *next = std::move(*finished);
    return {};
  };
  return commit(basis, put, in_flight, origin);
}

Result<ChangeReport> Registry::apply(const CompositionSpec& spec, InFlight in_flight) {
  return impl_->worker.run([impl = impl_.get(), spec, in_flight]() -> Result<ChangeReport> {
    const Impl::Basis from = impl->basis();
    std::vector<Status> refusals;
    const Preparation next = impl->prepare(from, spec, &refusals);
    if (!refusals.empty()) return join(refusals);
    return impl->put_in_place(from.epoch, next, in_flight);
  });
}

Result<ChangeReport> Registry::rollback(std::optional<uint64_t> epoch) {
  return impl_->worker.run([impl = impl_.get(), epoch]() -> Result<ChangeReport> {
    const Impl::Basis from = impl->basis();
    const Result<EpochRecord> record = impl->find_record(epoch);
    if (!record.ok()) return record.status();
    const Result<Preparation> next = impl->prepare(from, *record);
    if (!next.ok()) return next.status();
    return impl->put_in_place(from.epoch, *next, InFlight::kPin, record->place());
  });
}

Composition Registry::composition() const { return impl_->current().loaded.composition; }

std::vector<ModuleStatus> Registry::modules() const {
  std::vector<ModuleStatus> out;
  Impl::Current is;
  std::vector<std::weak_ptr<const Module>> retiring;
  {
    const MutexLock lock(impl_->state_mutex);
    is = impl_->now;
    retiring = impl_->retiring;
  }
  for (size_t i = 0; i < is.loaded.modules.size(); ++i) {
    const CompositionModule& entry = is.loaded.composition.modules[i];
    ModuleStatus status = describe(*is.loaded.modules[i],
                                   entry.enabled ? ModuleState::kActive : ModuleState::kDisabled);
    status.enabled = entry.enabled;
    status.bias = entry.bias;
    out.push_back(std::move(status));
  }
  if (const auto manifest = impl_->options.loader->loading()) {
    out.push_back(describe(*manifest, ModuleState::kLoading));
  }
  for (const auto& weak : retiring) {
    if (const auto module = weak.lock()) out.push_back(describe(*module, ModuleState::kRetiring));
  }
  return out;
}

LibraryStats Registry::library_stats() const { return impl_->options.loader->library_stats(); }

std::vector<EpochRecord> Registry::history() const {
  return impl_->options.store->history_of(impl_->options.loader->fingerprint());
}

}  // namespace chimera
