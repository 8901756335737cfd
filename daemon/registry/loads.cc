// Changes that load modules: load, apply, rollback (blend is in blend.cc).
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <future>
#include <optional>

#include "base/threads/background.h"
#include "daemon/registry/impl.h"

namespace chimera {
namespace {

/// The module must be the one that was asked for, and that the order of changes knows of.
Status check_name(const LoadArgs& args, const std::string& name, const Change& change) {
  if (!args.name.empty() && args.name != name) {
    return {Code::kInvalidArgument,
            fmt::format("name: found {} (expected {}, as {}/module.yaml says)", args.name, name,
                        args.path)};
  }
  if (std::find(change.names.begin(), change.names.end(), name) != change.names.end()) return {};
  return {Code::kUnavailable,
          fmt::format("module {}: found another one in {} when it was asked for (expected it to "
                      "stay as it is while it is loaded)",
                      name, args.path),
          "Ask again once its directory is complete"};
}

}  // namespace

Result<std::shared_ptr<const Module>> Registry::Impl::load_beside_streams(
    const WantedModule& wanted, Job* job) {
  const BackgroundScope background(options.engine->foreground());
  return options.loader->load(wanted.path, job, wanted.options);
}

std::vector<Result<FoundModule>> Registry::Impl::find_modules(
    const std::vector<WantedModule>& wanted, const CurrentModules& current, Job* job) {
  const auto find = [&, job](const WantedModule& one) -> Result<FoundModule> {
    const Result<std::string> dir = normal_module_path(one.path);
    if (!dir.ok()) return dir.status();
    const auto module = load_beside_streams({*dir, one.options}, job);
    if (!module.ok()) return module.status();
    return FoundModule(*module, current);
  };
  // Each takes the next one until none is left: however many there are, few jobs wait.
  std::vector<std::optional<Result<FoundModule>>> found(wanted.size());
  std::atomic<size_t> next{0};
  const auto find_some = [&]() -> Status {
    for (size_t i = next++; i < wanted.size(); i = next++) found[i].emplace(find(wanted[i]));
    return {};
  };
  std::vector<std::future<Status>> ends;
  for (size_t i = 0; i < std::min<size_t>(kLoadsAtOnce, wanted.size()); ++i) {
    auto end = std::make_shared<std::promise<Status>>();
    ends.push_back(end->get_future());
    loaders.post(find_some, [end](Status status) { end->set_value(std::move(status)); });
  }
  Status failed;  // of the pool: it stops, or memory is out
  for (std::future<Status>& end : ends) {
    Status status = end.get();
    if (!status.ok()) failed = std::move(status);
  }
  std::vector<Result<FoundModule>> out;
  for (auto& one : found) out.push_back(one ? std::move(*one) : Result<FoundModule>(failed));
  return out;
}

Preparation Registry::Impl::prepare(const CompositionSpec& spec, Job* job,
                                    std::vector<Status>* refusals) {
  std::vector<WantedModule> wanted;
  for (const CompositionSpec::ModuleSpec& wish : spec.modules) {
    wanted.push_back({wish.path, {wish.lambda, wish.precision, wish.weight}});
  }
  auto modules = find_modules(wanted, CurrentModules(current().loaded), job);
  Preparation next(options.loader->fingerprint(), spec.top_k);
  for (size_t i = 0; i < modules.size(); ++i) {
    const CompositionSpec::ModuleSpec& wish = spec.modules[i];
    Status status = modules[i].status();
    if (status.ok()) status = next.add(std::move(*modules[i]), wish.enabled, wish.bias);
    if (!status.ok()) refusals->push_back(std::move(status));
  }
  return next;
}

namespace {

Status check_record(const EpochRecord& record, const std::string& fingerprint,
                    const LoadedComposition& now) {
  if (record.composition.backbone_fingerprint != fingerprint) {
    return Status(Code::kFailedPrecondition,
                  fmt::format("epoch {}: found backbone {} (expected {})", record.epoch,
                              record.composition.backbone_fingerprint, fingerprint),
                  "It belongs to another backbone; choose a later epoch");
  }
  for (const CompositionModule& wanted : record.composition.modules) {
    if (!now.was_revoked(wanted.name)) continue;
    return revoked_refusal(fmt::format("rollback: epoch {}", record.epoch), wanted.name);
  }
  return {};
}

Status check_recorded(const CompositionModule& wanted, const FoundModule& found) {
  if (found.digest == wanted.digest) return {};
  return {Code::kFailedPrecondition,
          fmt::format("{}: found version {}, {} (expected {}, {})", wanted.path, found.version,
                      found.digest, wanted.version, wanted.digest),
          "Put the recorded version back into that directory"};
}

}  // namespace

Result<Preparation> Registry::Impl::prepare(const EpochRecord& record, Job* job) {
  CHIMERA_RETURN_IF_ERROR(check_record(record, options.loader->fingerprint(), current().loaded));
  std::vector<WantedModule> all;
  for (const CompositionModule& wanted : record.composition.modules) {
    all.push_back({wanted.path, {wanted.lambda, wanted.precision, wanted.weight}});
  }
  auto modules = find_modules(all, CurrentModules(current().loaded), job);
  Preparation next(options.loader->fingerprint(), record.composition.top_k);
  std::vector<Status> refusals;
  for (size_t i = 0; i < modules.size(); ++i) {
    const CompositionModule& wanted = record.composition.modules[i];
    Status status = modules[i].status();
    if (status.ok()) status = check_recorded(wanted, *modules[i]);
    if (!status.ok()) {
      status = status.with_context(fmt::format("epoch {}: module {}", record.epoch, wanted.name));
    } else {
      status = next.add(std::move(*modules[i]), wanted.enabled, wanted.bias);
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

Status Registry::Impl::check_unasked(const LoadedComposition& now, const Manifest& manifest,
                                     const LoadArgs& args) {
  if (args.source == LoadSource::kPerson) return {};
  if (now.was_revoked(manifest.name)) return revoked_refusal(args.path, manifest.name);
  const auto aside = now.set_aside.find(manifest.name);
  const bool unchanged = aside != now.set_aside.end() && aside->second == manifest.digest;
  if (args.source != LoadSource::kScan || !unchanged) return {};
  return set_aside_refusal(args.path, manifest.name);
}

Result<ChangeReport> Registry::Impl::make(const LoadArgs& args, const Running& running) {
  const Result<std::string> dir = normal_module_path(args.path);
  if (!dir.ok()) return dir.status();
  CHIMERA_RETURN_IF_ERROR(wanted(running));
  // Before seconds are spent on what would be refused in the end.
  CHIMERA_RETURN_IF_ERROR(no_change_beside_canary());
  const CurrentModules loaded(current().loaded);
  ModuleOptions made{.lambda = {}, .precision = args.precision, .weight = args.weight};
  if (const auto manifest = options.loader->manifest_of(*dir); manifest.ok()) {
    const LoadedComposition before = current().loaded;
    // Once more when it is put in: this saves reading what will not come in.
    CHIMERA_RETURN_IF_ERROR(check_unasked(before, **manifest, args));
    const CompositionModule* namesake = before.composition.find((*manifest)->name);
    if (namesake != nullptr && !args.precision && (*manifest)->takes_precision())
      made.precision = namesake->precision;
    if (namesake != nullptr && !args.weight && (*manifest)->kind == ModuleKind::kBundle)
      made.weight = namesake->weight;
  }
  Result<std::shared_ptr<const Module>> module =
      load_beside_streams({*dir, std::move(made)}, running.job.get());
  if (!module.ok()) return module.status();
  const Manifest manifest = (*module)->manifest;
  CHIMERA_RETURN_IF_ERROR(check_name(args, manifest.name, *running.change));
  CHIMERA_RETURN_IF_ERROR(check_bias(manifest.name, args.bias.value_or(0.0f)));
  const PreparedModule prepared(std::move(*module), loaded);
  const auto put = [&](LoadedComposition* next) -> Status {
    CHIMERA_RETURN_IF_ERROR(check_unasked(*next, manifest, args));
    auto held = prepared.get();
    if (held == nullptr) return overtaken();
    const Composition before = next->composition;
    const CompositionModule* namesake = before.find(manifest.name);
    put_module(next, std::move(held),
               args.enabled.value_or(namesake == nullptr || namesake->enabled),
               args.bias.value_or(namesake == nullptr ? 0.0f : namesake->bias));
    for (const auto& [name, edit] : queue.edits_since(running.change)) {
      if (name == manifest.name) edit_module(next, name, edit);
    }
    if (args.source == LoadSource::kPerson) set_aside_missing(before, next);
    return {};
  };
  running.job->enter(JobPhase::kPublishing);
  if (!args.canary) return commit(running, put, args.in_flight);
  return begin_canary(running, put,
                      {manifest.name, manifest.version, manifest.digest, *args.canary});
}

Result<ChangeReport> Registry::Impl::put_in_place(const Running& running,
                                                  const Preparation& prepared, InFlight in_flight,
                                                  uint64_t origin) {
  const auto put = [&](LoadedComposition* next) -> Status {
    for (const std::string& name : prepared.names()) {
      if (queue.revoked_since(running.change->turn, name)) return overtaken();
    }
    Result<LoadedComposition> finished = prepared.finish();
    if (!finished.ok()) return finished.status();
    for (const auto& [name, edit] : queue.edits_since(running.change)) {
      edit_module(&*finished, name, edit);
    }
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
  running.job->enter(JobPhase::kPublishing);
  return commit(running, put, in_flight, origin);
}

Result<ChangeReport> Registry::Impl::make(const ApplyArgs& args, const Running& running) {
  CHIMERA_RETURN_IF_ERROR(wanted(running));
  CHIMERA_RETURN_IF_ERROR(no_change_beside_canary());
  if (args.check) CHIMERA_RETURN_IF_ERROR(args.check());
  std::vector<Status> refusals;
  const Preparation next = prepare(args.spec, running.job.get(), &refusals);
  if (!refusals.empty()) return join(refusals);
  return put_in_place(running, next, args.in_flight);
}

Result<ChangeReport> Registry::Impl::make(const RollbackArgs& args, const Running& running) {
  CHIMERA_RETURN_IF_ERROR(wanted(running));
  CHIMERA_RETURN_IF_ERROR(no_change_beside_canary());
  const Result<EpochRecord> record = find_record(args.epoch);
  if (!record.ok()) return record.status();
  const Result<Preparation> next = prepare(*record, running.job.get());
  if (!next.ok()) return next.status();
  return put_in_place(running, *next, InFlight::kPin, record->place());
}

}  // namespace chimera
