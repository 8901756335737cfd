// The first table of a daemon: from the state directory, else from the deployment.
#include <fmt/format.h>

#include "base/log/log.h"
#include "daemon/registry/impl.h"

namespace chimera {

void Registry::Impl::try_add(LoadedComposition* target,
                             Result<std::shared_ptr<const Module>> module, const std::string& path,
                             bool enabled, float bias) {
  Status status = module.status();
  if (status.ok()) {
    const std::string name = (*module)->name();
    LoadedComposition with = *target;
    if (with.composition.find(name) != nullptr) {
      status = {Code::kAlreadyExists, "module " + name + ": found a second time (expected once)"};
    } else if (status = check_bias(name, bias); status.ok()) {
      put_module(&with, std::move(*module), enabled, bias);
      status = builder.build(0, with.composition, with.modules).status();
      if (status.ok()) *target = std::move(with);
    }
  }
  if (status.ok()) return;
  log::warning("module_left_out",
               {{"path", path}, {"reason", status.message()}, {"hint", status.hint()}});
}

LoadedComposition Registry::Impl::restore(const Composition& last) {
  LoadedComposition out;
  out.composition.backbone_fingerprint = options.fingerprint;
  out.composition.top_k = last.top_k;
  for (const CompositionModule& wanted : last.modules) {
    Result<std::shared_ptr<const Module>> module = loader.load(wanted.path);
    if (module.ok() && (*module)->manifest.digest != wanted.digest) {
      module = Status(Code::kFailedPrecondition,
                      fmt::format("module {}: found {} (expected {}, the acknowledged one)",
                                  wanted.name, (*module)->manifest.digest, wanted.digest),
                      "Load it again to take the new version");
    }
    try_add(&out, std::move(module), wanted.path, wanted.enabled, wanted.bias);
  }
  return out;
}

LoadedComposition Registry::Impl::first(const CompositionSpec& deployment) {
  LoadedComposition out;
  out.composition.backbone_fingerprint = options.fingerprint;
  out.composition.top_k = deployment.top_k;
  for (const CompositionSpec::ModuleSpec& wish : deployment.modules) {
    try_add(&out, loader.load(wish.path), wish.path, wish.enabled, wish.bias);
  }
  return out;
}

Result<std::shared_ptr<const RoutingTable>> Registry::start(const CompositionSpec& deployment) {
  Impl& r = *impl_;
  const std::vector<EpochRecord> history = r.options.store->history();
  LoadedComposition next;
  if (!history.empty() &&
      history.back().composition.backbone_fingerprint == r.options.fingerprint) {
    const EpochRecord& last = history.back();
    next = r.restore(last.composition);
    if (next.composition != last.composition) {
      log::warning("started_without_some_modules",
                   {{"epoch", last.epoch},
                    {"hint", fmt::format("repair them, then `chimera rollback {}`", last.epoch)}});
    } else if (!same_wish(deployment, next.composition)) {
      log::info("state_differs_from_deployment",
                {{"used", fmt::format("epoch {} of the state directory", last.epoch)},
                 {"hint", "`chimera apply FILE` switches to the composition of the deployment"}});
    }
  } else {
    if (!history.empty()) {
      log::warning("state_of_another_backbone",
                   {{"found", history.back().composition.backbone_fingerprint},
                    {"expected", r.options.fingerprint},
                    {"used", "the composition of the deployment"}});
    }
    next = r.first(deployment);
  }
  const uint64_t epoch = r.options.store->last_epoch() + 1;
  auto table = r.builder.build(epoch, next.composition, next.modules);
  if (!table.ok()) return table.status();
  log_notes((*table)->notes());
  CHIMERA_RETURN_IF_ERROR(r.options.store->append({epoch, utc_now(), next.composition}));
  const std::lock_guard guard(r.state_mutex);
  r.now = {epoch, std::move(next)};
  return table;
}

}  // namespace chimera
