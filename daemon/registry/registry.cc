#include "daemon/registry/registry.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/log/log.h"
#include "base/threads/background.h"
#include "daemon/registry/impl.h"

namespace chimera {
namespace {

ModuleStatus describe(const Manifest& manifest, std::string state) {
  ModuleStatus status;
  status.name = manifest.name;
  status.version = manifest.version;
  status.domain = manifest.domain;
  status.description = manifest.description;
  status.digest = manifest.digest;
  status.license = manifest.license;
  status.attach = manifest.attach == Attach::kAppend ? "append" : "replace";
  status.top_k = manifest.fitted_top_k();
  status.kind = manifest.kind == ModuleKind::kWeights ? "weights" : "library";
  status.state = std::move(state);
  return status;
}

ModuleStatus describe(const Module& module, std::string state) {
  ModuleStatus status = describe(module.manifest, std::move(state));
  status.experts = module.expert_count();
  status.resident_bytes = module.resident_bytes();
  if (module.library != nullptr) {
    status.library = {module.library->isolation() == Isolation::kProcess ? "process" : "in-process",
                      module.library->info(), module.library->status()};
  }
  return status;
}

}  // namespace

Registry::Impl::Impl(Options o)
    : options(std::move(o)),
      builder(options.backbone->config(), options.base),
      loader({options.backbone, options.tokenizer, options.base, options.fingerprint,
              options.libraries}) {}

Result<std::shared_ptr<const Module>> Registry::Impl::load_beside_streams(const std::string& dir) {
  const BackgroundScope background;
  return loader.load(dir);
}

LoadedComposition Registry::Impl::prepare(const CompositionSpec& spec,
                                          std::vector<Status>* refusals) {
  LoadedComposition next;
  next.composition.backbone_fingerprint = options.fingerprint;
  next.composition.top_k = spec.top_k;
  for (const CompositionSpec::ModuleSpec& wish : spec.modules) {
    const Result<std::string> dir = normal_module_path(wish.path);
    if (!dir.ok()) {
      refusals->push_back(dir.status());
      continue;
    }
    Result<std::shared_ptr<const Module>> module = load_beside_streams(*dir);
    if (!module.ok()) {
      refusals->push_back(module.status());
      continue;
    }
    const std::string& name = (*module)->name();
    if (const CompositionModule* other = next.composition.find(name)) {
      refusals->push_back(
          {Code::kAlreadyExists, fmt::format("module {}: found in {} and in {} (expected names to "
                                             "be distinct)",
                                             name, other->path, *dir)});
      continue;
    }
    if (Status bias = check_bias(name, wish.bias); !bias.ok()) {
      refusals->push_back(std::move(bias));
      continue;
    }
    put_module(&next, std::move(*module), wish.enabled, wish.bias);
  }
  return next;
}

Result<LoadedComposition> Registry::Impl::prepare(const EpochRecord& record) {
  if (record.composition.backbone_fingerprint != options.fingerprint) {
    return Status(Code::kFailedPrecondition,
                  fmt::format("epoch {}: found backbone {} (expected {})", record.epoch,
                              record.composition.backbone_fingerprint, options.fingerprint),
                  "It belongs to another backbone; choose a later epoch");
  }
  LoadedComposition next;
  next.composition.backbone_fingerprint = options.fingerprint;
  next.composition.top_k = record.composition.top_k;
  std::vector<Status> refusals;
  for (const CompositionModule& wanted : record.composition.modules) {
    const std::string context = fmt::format("epoch {}: module {}", record.epoch, wanted.name);
    Result<std::shared_ptr<const Module>> module = load_beside_streams(wanted.path);
    if (!module.ok()) {
      refusals.push_back(module.status().with_context(context));
    } else if ((*module)->manifest.digest != wanted.digest) {
      refusals.push_back({Code::kFailedPrecondition,
                          fmt::format("{}: {}: found version {}, {} (expected {}, {})", context,
                                      wanted.path, (*module)->manifest.version,
                                      (*module)->manifest.digest, wanted.version, wanted.digest),
                          "Put the recorded version back into that directory"});
    } else {
      put_module(&next, std::move(*module), wanted.enabled, wanted.bias);
    }
  }
  if (!refusals.empty()) return join(refusals);
  return next;
}

Result<EpochRecord> Registry::Impl::find_record(std::optional<uint64_t> epoch) const {
  const std::vector<EpochRecord> history = options.store->history();
  const Composition is = current().loaded.composition;
  for (auto it = history.rbegin(); it != history.rend(); ++it) {
    if (epoch ? it->epoch == *epoch : it->composition != is) return *it;
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

Result<ChangeReport> Registry::Impl::load(const LoadArgs& args) {
  const Result<std::string> dir = normal_module_path(args.path);
  if (!dir.ok()) return dir.status();
  Current from = current();
  LoadedComposition next = from.loaded;
  {
    Result<std::shared_ptr<const Module>> module = load_beside_streams(*dir);
    if (!module.ok()) return module.status();
    const std::string name = (*module)->name();
    if (!args.name.empty() && args.name != name) {
      return Status(Code::kInvalidArgument,
                    fmt::format("name: found {} (expected {}, as {}/module.yaml says)", args.name,
                                name, *dir));
    }
    const CompositionModule* before = next.composition.find(name);
    const bool enabled = args.enabled.value_or(before == nullptr || before->enabled);
    const float bias = args.bias.value_or(before == nullptr ? 0.0f : before->bias);
    CHIMERA_RETURN_IF_ERROR(check_bias(name, bias));
    put_module(&next, std::move(*module), enabled, bias);
  }
  return commit(std::move(from), std::move(next), args.in_flight);
}

PlanReport Registry::Impl::plan(const CompositionSpec& spec) {
  PlanReport report;
  const Current from = current();
  const LoadedComposition next = prepare(spec, &report.refusals);
  report.changes = difference(from.loaded.composition, next.composition);
  report.composition = next.composition.digest();
  for (const auto& module : next.modules) {
    const auto& resident = from.loaded.modules;
    if (std::find(resident.begin(), resident.end(), module) == resident.end()) {
      report.memory_bytes += static_cast<int64_t>(module->resident_bytes());
    }
  }
  const auto table = builder.build(from.epoch + 1, next.composition, next.modules);
  if (table.ok()) {
    report.notes = (*table)->notes();
  } else {
    report.refusals.push_back(table.status());
  }
  return report;
}

Registry::Registry(Options options) : impl_(std::make_unique<Impl>(std::move(options))) {}
Registry::~Registry() = default;

void Registry::attach_engine(Engine* engine) { impl_->engine = engine; }

void Registry::stop() {
  impl_->stopping = true;
  impl_->worker.stop();
}

Result<ChangeReport> Registry::load(const LoadArgs& args) {
  return impl_->worker.run([impl = impl_.get(), args] { return impl->load(args); });
}

Result<ChangeReport> Registry::unload(const std::string& name) {
  return impl_->worker.run([impl = impl_.get(), name]() -> Result<ChangeReport> {
    Impl::Current from = impl->current();
    LoadedComposition next = from.loaded;
    if (next.composition.find(name) == nullptr) return unknown_module(next.composition, name);
    remove_module(&next, name);
    return impl->commit(std::move(from), std::move(next), InFlight::kPin);
  });
}

Result<ChangeReport> Registry::unload_from(const std::string& path) {
  return impl_->worker.run([impl = impl_.get(), path]() -> Result<ChangeReport> {
    Impl::Current from = impl->current();
    LoadedComposition next = from.loaded;
    for (const CompositionModule& module : from.loaded.composition.modules) {
      if (module.path != path) continue;
      remove_module(&next, module.name);
      return impl->commit(std::move(from), std::move(next), InFlight::kPin);
    }
    return Status(Code::kNotFound, "module: found none loaded from " + path);
  });
}

Result<ChangeReport> Registry::revoke(const std::string& name) { return impl_->revoke(name); }

Result<ChangeReport> Registry::set_bias(const std::string& name, float value) {
  return impl_->worker.run([impl = impl_.get(), name, value]() -> Result<ChangeReport> {
    Impl::Current from = impl->current();
    LoadedComposition next = from.loaded;
    if (next.composition.find(name) == nullptr) return unknown_module(next.composition, name);
    CHIMERA_RETURN_IF_ERROR(check_bias(name, value));
    for (CompositionModule& module : next.composition.modules) {
      if (module.name == name) module.bias = value;
    }
    return impl->commit(std::move(from), std::move(next), InFlight::kPin);
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

Result<ChangeReport> Registry::apply(const CompositionSpec& spec, InFlight in_flight) {
  return impl_->worker.run([impl = impl_.get(), spec, in_flight]() -> Result<ChangeReport> {
    Impl::Current from = impl->current();
    std::vector<Status> refusals;
    LoadedComposition next = impl->prepare(spec, &refusals);
    if (!refusals.empty()) return join(refusals);
    return impl->commit(std::move(from), std::move(next), in_flight);
  });
}

Result<ChangeReport> Registry::rollback(std::optional<uint64_t> epoch) {
  return impl_->worker.run([impl = impl_.get(), epoch]() -> Result<ChangeReport> {
    Impl::Current from = impl->current();
    const Result<EpochRecord> record = impl->find_record(epoch);
    if (!record.ok()) return record.status();
    Result<LoadedComposition> next = impl->prepare(*record);
    if (!next.ok()) return next.status();
    return impl->commit(std::move(from), std::move(*next), InFlight::kPin);
  });
}

Composition Registry::composition() const { return impl_->current().loaded.composition; }

std::vector<ModuleStatus> Registry::modules() const {
  std::vector<ModuleStatus> out;
  Impl::Current is;
  std::vector<std::weak_ptr<const Module>> retiring;
  {
    const std::lock_guard guard(impl_->state_mutex);
    is = impl_->now;
    retiring = impl_->retiring;
  }
  for (size_t i = 0; i < is.loaded.modules.size(); ++i) {
    const CompositionModule& entry = is.loaded.composition.modules[i];
    ModuleStatus status = describe(*is.loaded.modules[i], entry.enabled ? "active" : "disabled");
    status.enabled = entry.enabled;
    status.bias = entry.bias;
    out.push_back(std::move(status));
  }
  if (const auto manifest = impl_->loader.loading()) out.push_back(describe(*manifest, "loading"));
  for (const auto& weak : retiring) {
    if (const auto module = weak.lock()) out.push_back(describe(*module, "retiring"));
  }
  return out;
}

LibraryStats Registry::library_stats() const {
  return impl_->options.libraries ? impl_->options.libraries->stats() : LibraryStats{};
}

std::vector<EpochRecord> Registry::history() const { return impl_->options.store->history(); }

}  // namespace chimera
