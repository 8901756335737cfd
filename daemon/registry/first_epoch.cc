#include "daemon/registry/first_epoch.h"

#include <fmt/format.h>

#include <tuple>
#include <utility>

#include "base/log/log.h"
#include "daemon/registry/impl.h"

namespace chimera {
namespace {

/// A composition that grows by the modules that can be loaded.
class Beginning {
 public:
  Beginning(ModuleLoader* loader, std::optional<int64_t> top_k) : loader_(loader) {
    loaded_.composition.backbone_fingerprint = loader->fingerprint();
    loaded_.composition.top_k = top_k;
  }

  /// Adds a module if the result still is a valid table; warns otherwise.
  void try_add(Result<std::shared_ptr<const Module>> module, const std::string& path, bool enabled,
               float bias) {
    Status status = module.status();
    if (status.ok()) status = add(std::move(*module), enabled, bias);
    if (!status.ok()) warn(path, status);
  }

  /// Without the last bundles, if all of them have no average.
  LoadedComposition take() {
    for (;;) {
      const Status status = make_average();
      if (status.ok()) return std::move(loaded_);
      size_t last = loaded_.modules.size();
      while (last > 0 && !is_used_bundle(last - 1)) --last;
      if (last == 0) return std::move(loaded_);  // of others: whoever starts on them says why
      warn(loaded_.composition.modules[last - 1].path, status);
      const std::string name = loaded_.composition.modules[last - 1].name;
      remove_module(&loaded_, name);
    }
  }
  /// What requests use of what take() gave, made already.
  std::shared_ptr<const ActiveSet> used() const { return used_; }

 private:
  static void warn(const std::string& path, const Status& status) {
    log::warning("module_left_out",
                 {{"path", path}, {"reason", status.message()}, {"hint", status.hint()}});
  }

  bool is_used_bundle(size_t i) const {
    return loaded_.composition.modules[i].enabled && loaded_.modules[i]->bundle != nullptr;
  }

  Status make_average() {
    const auto table = loader_->builder().build(0, loaded_.composition, loaded_.modules);
    if (!table.ok()) return table.status();
    used_ = (*table)->layout()->active((*table)->layout()->unnamed());
    return used_->average != nullptr ? used_->average->wait(AverageFor::kComposition) : Status();
  }

  Status add(std::shared_ptr<const Module> module, bool enabled, float bias) {
    const std::string name = module->name();
    if (loaded_.composition.find(name) != nullptr) {
      return {Code::kAlreadyExists, "module " + name + ": found a second time (expected once)"};
    }
    CHIMERA_RETURN_IF_ERROR(check_bias(name, bias));
    LoadedComposition with = loaded_;
    put_module(&with, std::move(module), enabled, bias);
    const auto table = loader_->builder().build(0, with.composition, with.modules);
    if (!table.ok()) return table.status();
    loaded_ = std::move(with);
    return {};
  }

  ModuleLoader* loader_;
  LoadedComposition loaded_;
  std::shared_ptr<const ActiveSet> used_;
};

/// With what requests use of it.
using Begun = std::pair<LoadedComposition, std::shared_ptr<const ActiveSet>>;

Begun taken(Beginning& out) {
  LoadedComposition loaded = out.take();
  return {std::move(loaded), out.used()};
}

Begun restored(ModuleLoader* loader, const Composition& last) {
  Beginning out(loader, last.top_k);
  for (const CompositionModule& wanted : last.modules) {
    Result<std::shared_ptr<const Module>> module =
        loader->load(wanted.path, nullptr, {wanted.lambda, wanted.precision, wanted.weight});
    if (module.ok() && (*module)->manifest.digest != wanted.digest) {
      module = Status(Code::kFailedPrecondition,
                      fmt::format("module {}: found {} (expected {}, the acknowledged one)",
                                  wanted.name, (*module)->manifest.digest, wanted.digest),
                      "Load it again to take the new version");
    }
    out.try_add(std::move(module), wanted.path, wanted.enabled, wanted.bias);
  }
  return taken(out);
}

Begun deployed(ModuleLoader* loader, const CompositionSpec& deployment) {
  Beginning out(loader, deployment.top_k);
  for (const CompositionSpec::ModuleSpec& wish : deployment.modules) {
    out.try_add(loader->load(wish.path, nullptr, {wish.lambda, wish.precision, wish.weight}),
                wish.path, wish.enabled, wish.bias);
  }
  return taken(out);
}

Begun restored_record(ModuleLoader* loader, const EpochRecord& last,
                      const CompositionSpec& deployment) {
  auto [next, used] = restored(loader, last.composition);
  next.revoked = last.revoked;
  next.set_aside = last.set_aside;
  if (next.composition != last.composition) {
    log::warning("started_without_some_modules",
                 {{"epoch", last.epoch},
                  {"hint", fmt::format("repair them, then `chimera rollback {}`", last.epoch)}});
  } else if (!same_wish(deployment, next.composition)) {
    log::info("state_differs_from_deployment",
              {{"used", fmt::format("epoch {} of the state directory", last.epoch)},
               {"hint", "`chimera apply FILE` switches to the composition of the deployment"}});
  }
  return {std::move(next), std::move(used)};
}

}  // namespace

Result<FirstEpoch> first_epoch(ModuleLoader* loader, StateStore* store,
                               const CompositionSpec& deployment) {
  const std::string& fingerprint = loader->fingerprint();
  const std::vector<EpochRecord> history = store->history_of(fingerprint);
  FirstEpoch first;
  uint64_t origin = 0;
  if (!history.empty()) {
    const EpochRecord& last = history.back();
    std::tie(first.loaded, first.used) = restored_record(loader, last, deployment);
    // A restart is no step of the history.
    if (first.loaded.composition == last.composition) origin = last.place();
  } else {
    if (!store->history().empty()) {
      log::info("first_start_of_this_backbone",
                {{"fingerprint", fingerprint},
                 {"used", "the composition of the deployment"},
                 {"kept", "what the state directory holds of other backbones"}});
    }
    std::tie(first.loaded, first.used) = deployed(loader, deployment);
  }
  first.epoch = store->last_epoch() + 1;
  const LoadedComposition& loaded = first.loaded;
  auto table = loader->builder().build(first.epoch, loaded.composition, loaded.modules);
  if (!table.ok()) return table.status();
  log_notes((*table)->notes());
  first.place = origin == 0 ? first.epoch : origin;
  CHIMERA_RETURN_IF_ERROR(store->append(
      {first.epoch, utc_now(), loaded.composition, origin, loaded.revoked, loaded.set_aside}));
  first.table = std::move(*table);
  return first;
}

}  // namespace chimera
