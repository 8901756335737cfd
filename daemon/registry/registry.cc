#include "daemon/registry/registry.h"

#include "daemon/registry/impl.h"
#include "experts/assembly/source.h"

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
  status.precision = module.precision;
  if (module.bundle != nullptr) status.weight = module.bundle->weight();
  status.resident_bytes = module.resident_bytes();
  if (module.is_adapter()) status.resident = status.resident_bytes > 0;
  if (module.assembly != nullptr) {
    const Lambdas& in_force = module.lambda.empty() ? module.assembly->lambdas() : module.lambda;
    for (const std::string& parent : parent_names(module.assembly->recipe())) {
      status.lambda.emplace_back(parent, in_force.at(parent));
    }
  }
  if (module.library != nullptr) {
    status.library = {module.library->isolation(), module.library->info(),
                      module.library->status()};
  }
  return status;
}

}  // namespace

Registry::Impl::Impl(Options o, FirstEpoch first)
    : options(o), queue([this](const std::string& name) { return is_loaded(name); }) {
  const MutexLock lock(state_mutex);
  now = {first.epoch, std::move(first.loaded), first.place};
  // Kept before what it does not name may go.
  now.used = used_of(*options.engine->table());
  if (now.used->lease != nullptr) options.loader->residency()->let_go_unused();
  options.loader->builder().averages()->set_current(now.used->layout->modules());
}

Registry::Impl::Current Registry::Impl::current() const {
  const MutexLock lock(state_mutex);
  return now;
}

bool Registry::Impl::is_loaded(const std::string& name) const {
  const MutexLock lock(state_mutex);
  return now.loaded.composition.find(name) != nullptr;
}

Status Registry::Impl::still_wanted(const Running& running) const {
  if (stopping) return {Code::kUnavailable, "the daemon is stopping"};
  if (running.asker_wants) CHIMERA_RETURN_IF_ERROR(running.asker_wants());
  const Change& change = *running.change;
  if (!change.loads()) return {};
  for (const std::string& name : change.names) {
    if (queue.revoked_since(change.turn, name)) return overtaken();
  }
  return {};
}

namespace {

/// Names a module by its manifest; one that cannot be read is told when it is loaded.
void add_module(const std::string& path, const ModuleLoader& loader, Change* change) {
  const Result<std::string> dir = normal_module_path(path);
  if (!dir.ok()) return;
  change->names.push_back(*dir);
  const auto manifest = loader.manifest_of(*dir);
  if (manifest.ok()) change->names.push_back((*manifest)->name);
}

using Kind = Change::Kind;

void describe(const LoadArgs& args, const Composition&, const ModuleLoader& loader,
              Change* change) {
  change->kind = Kind::kLoad;
  add_module(args.path, loader, change);
}
void describe(const UnloadArgs& args, const Composition&, const ModuleLoader&, Change* change) {
  change->kind = Kind::kRemove;
  change->names = {args.name};
}
void describe(const UnloadFromArgs& args, const Composition& now, const ModuleLoader&,
              Change* change) {
  change->kind = Kind::kRemove;
  change->names = {args.path};
  for (const CompositionModule& module : now.modules) {
    if (module.path == args.path) change->names.push_back(module.name);
  }
}
void describe(const EditArgs& args, const Composition&, const ModuleLoader&, Change* change) {
  change->kind = Kind::kEdit;
  change->names = {args.name};
}
void describe(const BlendArgs& args, const Composition& now, const ModuleLoader&, Change* change) {
  change->kind = Kind::kLoad;
  change->names = {args.name};
  const CompositionModule* module = now.find(args.name);
  if (module != nullptr) change->names.push_back(module->path);
}
void describe(const ApplyArgs& args, const Composition&, const ModuleLoader& loader,
              Change* change) {
  change->kind = Kind::kComposition;
  for (const CompositionSpec::ModuleSpec& module : args.spec.modules) {
    add_module(module.path, loader, change);
  }
}
void describe(const PromoteArgs&, const Composition&, const ModuleLoader&, Change* change) {
  change->kind = Kind::kRemove;
  change->any = true;
}
void describe(const RollbackArgs&, const Composition&, const ModuleLoader&, Change* change) {
  change->kind = Kind::kComposition;
  change->any = true;  // to which record is known when those before it are done
}

}  // namespace

std::shared_ptr<Job> Registry::Impl::make_job(const ChangeRequest& request, const Running& running,
                                              std::function<void(const JobStatus&)> on_progress) {
  const char* call = std::holds_alternative<LoadArgs>(request)    ? "load"
                     : std::holds_alternative<BlendArgs>(request) ? "blend"
                     : std::holds_alternative<ApplyArgs>(request) ? "apply"
                                                                  : "rollback";
  std::vector<std::string> modules;
  for (const std::string& name : running.change->names) {
    if (!name.starts_with('/')) modules.push_back(name);
  }
  auto job = std::make_shared<Job>(
      running.change->turn, call, std::move(modules),
      [this, running] { return still_wanted(running); }, std::move(on_progress));
  jobs.add(job);
  return job;
}

Registry::Registry(Options options, FirstEpoch first)
    : impl_(std::make_unique<Impl>(options, std::move(first))) {}
Registry::~Registry() { stop(); }

void Registry::stop() {
  impl_->stopping = true;
  impl_->canary_guard.stop();
  for (const auto& job : impl_->jobs.running()) job->cancel();
  for (WorkerPool* pool : {&impl_->loads, &impl_->loaders, &impl_->edits}) pool->stop();
}

uint64_t Registry::take_turn() { return ++impl_->turns; }

std::string Registry::ask(ChangeRequest request, Asker asker,
                          std::function<void(Result<ChangeReport>)> done) {
  auto change = std::make_shared<Change>();
  change->turn = asker.turn == 0 ? take_turn() : asker.turn;
  std::visit(
      [&](const auto& args) {
        describe(args, composition(), *impl_->options.loader, change.get());
      },
      request);
  Impl::Running running{change, std::move(asker.still_wanted)};
  if (const auto* edit = std::get_if<EditArgs>(&request)) running.edit = edit->edit;
  if (change->loads())
    running.job = impl_->make_job(request, running, std::move(asker.on_progress));
  std::string id = running.job ? running.job->id() : "";
  const auto end = [impl = impl_.get(), change, job = running.job,
                    done](Result<ChangeReport> report) {
    if (job) impl->jobs.end(job, report.status(), report.ok() ? report->epoch : 0);
    impl->queue.end(change);
    done(std::move(report));
  };
  const auto start = [impl = impl_.get(), running, request = std::move(request), end] {
    std::visit([&](const auto& args) { impl->start(args, running, end); }, request);
  };
  const Status queued = impl_->queue.add(std::move(change), start);
  if (!queued.ok()) end(queued);
  return id;
}

bool Registry::cancel(const std::string& id) {
  const std::shared_ptr<Job> job = impl_->jobs.find(id);
  if (job == nullptr || !job->cancel()) return false;
  impl_->queue.start_now(job->turn());
  return true;
}

std::vector<JobStatus> Registry::jobs() const { return impl_->jobs.list(); }

Result<ChangeReport> Registry::change(ChangeRequest request) {
  std::promise<Result<ChangeReport>> answer;
  ask(std::move(request), {},
      [&](Result<ChangeReport> report) { answer.set_value(std::move(report)); });
  return answer.get_future().get();
}

Result<ChangeReport> Registry::revoke(const std::string& name, uint64_t turn,
                                      RevokedModule* revoked) {
  if (turn == 0) turn = take_turn();
  // Before the locks: looking takes longer than the revocation.
  if (revoked != nullptr) impl_->trace(name, revoked);
  return impl_->revoke(name, turn, revoked);
}

Composition Registry::composition() const { return impl_->current().loaded.composition; }

std::vector<ModuleStatus> Registry::modules() const {
  std::vector<ModuleStatus> out;
  Impl::Current is;
  std::vector<std::weak_ptr<const Module>> retiring;
  std::optional<Impl::Canary> canary;
  {
    const MutexLock lock(impl_->state_mutex);
    is = impl_->now;
    retiring = impl_->retiring;
    canary = impl_->canary;
  }
  for (size_t i = 0; i < is.loaded.modules.size(); ++i) {
    const CompositionModule& entry = is.loaded.composition.modules[i];
    ModuleStatus status = describe(*is.loaded.modules[i],
                                   entry.enabled ? ModuleState::kActive : ModuleState::kDisabled);
    status.path = entry.path;
    status.enabled = entry.enabled;
    status.bias = entry.bias;
    out.push_back(std::move(status));
  }
  for (size_t i = 0; canary && i < canary->loaded.modules.size(); ++i) {
    const CompositionModule& entry = canary->loaded.composition.modules[i];
    if (entry.name != canary->status.module) continue;
    ModuleStatus status = describe(*canary->loaded.modules[i], ModuleState::kCanary);
    status.path = entry.path;
    status.bias = entry.bias;
    out.push_back(std::move(status));
  }
  for (const auto& job : impl_->jobs.running()) {
    for (const auto& manifest : job->loading()) {
      out.push_back(describe(*manifest, ModuleState::kLoading));
      out.back().job = job->status();
    }
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
