#include "daemon/registry/module_loader.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <chrono>
#include <cmath>
#include <numbers>

#include "base/io/digest.h"
#include "base/limits.h"
#include "base/log/log.h"
#include "base/threads/background.h"
#include "daemon/engine/engine.h"
#include "daemon/model/model_weights.h"
#include "experts/kinds/assembly_module.h"
#include "experts/kinds/bundle_module.h"
#include "experts/kinds/gates.h"
#include "experts/kinds/load.h"
#include "experts/kinds/lora.h"
#include "experts/library/backend.h"
#include "experts/module/bare_adapter.h"
#include "experts/module/files.h"
#include "experts/module/outline.h"
#include "experts/module/payload.h"

namespace chimera {
namespace {

using Clock = std::chrono::steady_clock;

double ms_since(Clock::time_point start) {
  return std::chrono::duration<double, std::milli>(Clock::now() - start).count();
}

// Remembered directories and verdicts: those of the largest composition, and some that were.
constexpr size_t kRemembered = kMaxModules + 256;
// Length of the probe of a module that brings no text: enough for every expert to see some.
constexpr int64_t kTokenProbe = 32;
// A second run shows repeatability; it is left out when the first took longer than this, because
// a load should not take twice as long for it.
constexpr std::chrono::milliseconds kCheapProbe{500};

/// A library that is lost while it serves is started again; one that does not survive its probe is
/// not, so its "try again" would be wrong here.
Status probe_failure(const Module& module, const Status& status) {
  if (module.library == nullptr || status.code() != Code::kUnavailable) return status;
  return {Code::kFailedPrecondition, status.message(),
          "It was not loaded; chimera-plugin-check on the module says what its library does wrong"};
}

/// A module with its place in the account, which is given up after the module has gone.
struct Counted {
  Ledger::Place place;
  std::shared_ptr<const Module> module;
};

/// What manifest and headers tell against the backbone.
Status check_outline(const std::string& dir, const Manifest& manifest, const ModelConfig& config,
                     const std::string& fingerprint) {
  switch (manifest.kind) {
    case ModuleKind::kWeights:
      return check_module_outline(dir, manifest, config, fingerprint);
    case ModuleKind::kLibrary:
      return check_module_fit(manifest, config, fingerprint);
    case ModuleKind::kLora:
      return check_lora_outline(dir, manifest, config, fingerprint);
    case ModuleKind::kBundle:
      return check_bundle_outline(dir, manifest, config, fingerprint);
    case ModuleKind::kAssembly:
      break;  // has an outline of its own: outline_assembly
  }
  return {Code::kInternal, dir + ": a module kind without an outline"};
}

/// Whether load() with `options` would make the same of the same files.
bool made_the_same(const Module& module, const ModuleOptions& options) {
  if (module.asked_precision != options.precision) return false;
  if (module.asked_weight != options.weight) return false;
  if (module.assembly == nullptr) return options.lambda.empty();
  const Lambdas& recipes = module.assembly->lambdas();
  const auto wanted = complete_lambdas(module.assembly->recipe(), recipes, options.lambda);
  if (!wanted.ok() || !module.assembly->check_unchanged().ok()) return false;
  return *wanted == (module.lambda.empty() ? recipes : module.lambda);
}

/// Two changes in one tick of a file's clock leave the same stamp: one that is younger than the
/// coarsest of these clocks (FAT) may stand for other bytes than were read.
constexpr std::chrono::nanoseconds kTick = std::chrono::seconds(2);

int64_t wall_clock_ns() {
  return std::chrono::nanoseconds(std::chrono::system_clock::now().time_since_epoch()).count();
}

/// For loads, which look at one module at a time and for themselves.
ModuleLoader::Accept accept_each(const ModuleLoader::MakeAccept& make) {
  if (!make) return nullptr;
  return [make](const std::string& dir, const Manifest& manifest) { return make()(dir, manifest); };
}

/// An average with its place in the account, which is given up after it has gone.
struct CountedAverage {
  Ledger::Place place;
  std::shared_ptr<const Backbone> backbone;
};

/// Averages of bundles, in the account for as long as they last. `ledger` may be null, and outlives
/// the function.
Averages::Make counted_averages(Ledger* ledger) {
  return [ledger](Averages::Modules modules) -> Result<std::shared_ptr<const Backbone>> {
    std::vector<const Bundle*> bundles;
    std::vector<std::span<const SharedChange>> changes;
    for (const auto& module : modules) {
      bundles.push_back(module->bundle.get());
      changes.emplace_back(module->bundle->changes());
    }
    // Requests wait for it, and others go on.
    const BackgroundScope beside_streams;
    const MadeBytes bytes = average_bytes(bundles.front()->source(), changes);
    auto counted = std::make_shared<CountedAverage>();
    if (ledger != nullptr) {
      const std::string name = fmt::format("average of {} bundles", bundles.size());
      auto place = ledger->take(MemoryUse::kBackbone, name, bytes.making, "the " + name);
      if (!place.ok()) return place.status();
      counted->place = std::move(*place);
    }
    auto made = averaged_backbone(bundles);
    if (!made.ok()) {
      // Nothing is wrong where nobody wants it any more, and clients may come and go as they like.
      if (made.status().code() != Code::kCancelled)
        log::warning("average_not_made", {{"reason", made.status().message()}});
      return made.status();
    }
    counted->backbone = std::move(*made);
    counted->place.correct(bytes.resident);
    return std::shared_ptr<const Backbone>(counted, counted->backbone.get());
  };
}

template <class T>
void bound(std::list<T>* list) {
  while (list->size() > kRemembered) list->pop_back();
}

/// Gate rows of very many modules are copied to lie together (router/routing_layout.h): a
/// thousandth of what the modules are. A table is not refused for it, as a revocation needs one,
/// too.
LayoutCache::Account account_of(Ledger* ledger) {
  if (ledger == nullptr) return nullptr;
  return [ledger](uint64_t bytes) -> std::shared_ptr<void> {
    auto place = ledger->take(MemoryUse::kTables, "", 0, "gate rows of a routing table");
    if (!place.ok()) return nullptr;
    place->correct(bytes);
    return std::make_shared<Ledger::Place>(std::move(*place));
  };
}

}  // namespace

ModuleLoader::ModuleLoader(LoadedBackbone model, std::shared_ptr<LibraryRuntime> libraries,
                           Ledger* ledger, MakeAccept accept, AdapterStore* adapters)
    : model_(std::move(model)),
      make_accept_(std::move(accept)),
      info_{model_.backbone->config(),
            model_.fingerprint,
            model_.backbone->precision().experts,
            std::move(libraries),
            std::make_shared<DigestMemo>(),
            accept_each(make_accept_),
            std::make_shared<ModelWeights>(model_.backbone, model_.base),
            model_.source},
      builder_(info_.config, model_.base, account_of(ledger), counted_averages(ledger)),
      adapters_(adapters),
      reading_info_(std::make_shared<BackboneInfo>(
          BackboneInfo{info_.config, info_.fingerprint, info_.precision, nullptr, info_.digests,
                       nullptr, info_.weights, nullptr})),
      reading_(info_.libraries == nullptr ? LibraryCeilings().load
                                          : info_.libraries->options().ceilings.load),
      places_(ledger, &kept_),
      ledger_(ledger) {
  if (ledger_ == nullptr) return;
  const std::weak_ptr<Averages> averages = builder_.averages();
  ledger_->set_idle({[averages, backbone = model_.backbone] {
                       const auto known = averages.lock();
                       return known == nullptr ? 0 : known->idle_bytes(*backbone);
                     },
                     [averages] {
                       const auto known = averages.lock();
                       return known != nullptr && known->let_go_one();
                     }});
}

ModuleLoader::~ModuleLoader() {
  if (ledger_ != nullptr) ledger_->set_idle({});
  // While builder_ has a share in them: what the ledger asks has one, too, for a moment, and on the
  // thread that makes them it would be the last.
  builder_.averages()->stop();
}

LibraryStats ModuleLoader::library_stats() const {
  return info_.libraries ? info_.libraries->stats() : LibraryStats{};
}

Result<std::shared_ptr<const Manifest>> ModuleLoader::manifest_of(const std::string& dir) const {
  if (is_bare_adapter(dir)) {
    Result<Manifest> bare = bare_adapter_manifest(dir);
    if (!bare.ok()) return bare.status();
    return std::make_shared<const Manifest>(std::move(*bare));
  }
  const Result<ModuleFile> file = ModuleFile::open(dir, "module.yaml");
  if (!file.ok()) return file.status();
  const Result<std::string> text = file->text(kMaxManifestBytes);
  if (!text.ok()) return text.status();
  {
    const std::string digest = sha256_of(*text);
    const MutexLock lock(mutex_);
    const auto known = known_.find(dir);
    if (known != known_.end() && known->second.manifest->digest == digest)
      return known->second.manifest;
  }
  Result<Manifest> parsed = parse_manifest(*text, dir + "/module.yaml");
  if (!parsed.ok()) return parsed.status();
  return std::make_shared<const Manifest>(std::move(*parsed));
}

Result<std::shared_ptr<const Manifest>> ModuleLoader::accepted_manifest(
    const std::string& dir, const Accept& accept) const {
  auto manifest = manifest_of(dir);
  if (!manifest.ok()) return manifest;
  if (accept) CHIMERA_RETURN_IF_ERROR(accept(dir, **manifest));
  if (!(*manifest)->derived) return manifest;
  Manifest whole = **manifest;
  CHIMERA_RETURN_IF_ERROR(complete_manifest(dir, info_.digests.get(), &whole));
  return std::make_shared<const Manifest>(std::move(whole));
}

Result<std::shared_ptr<const Module>> ModuleLoader::load(const std::string& dir, Job* job,
                                                         const ModuleOptions& options) {
  const int64_t began_ns = wall_clock_ns();
  const auto read = accepted_manifest(dir, info_.accept);
  if (!read.ok()) return read.status();
  const std::shared_ptr<const Manifest>& manifest = *read;
  std::vector<Stamp> stamps = stamps_of(dir, *manifest);
  log::debug("load_manifest", {{"module", manifest->name},
                               {"version", manifest->version},
                               {"dir", dir},
                               {"digest", manifest->digest}});
  if (auto known = reusable(dir, *manifest, stamps, options); known.module != nullptr) {
    log::debug("load_known", {{"module", manifest->name}});
    return known.module;
  }
  const auto fitted = with_precision(info_, *manifest, options.precision);
  if (!fitted.ok()) return fitted.status();
  if (job != nullptr) job->begin(manifest);
  const Result<ModuleSize> size = size_of(dir, *manifest, *fitted);
  Result<std::shared_ptr<const Module>> module = load_new(
      *manifest, size, 2, [&] { return load_module(dir, info_, options); }, job);
  if (job != nullptr) job->end(manifest.get());
  if (!module.ok()) return module.status();
  // Only when nothing changed while it was read do the stamps stand for these bytes.
  if ((*module)->manifest.digest == manifest->digest && stamps_of(dir, *manifest) == stamps) {
    const bool settled = !manifest->derived && stamps.front().changed_ns + kTick.count() < began_ns;
    remember(dir,
             {manifest, std::move(stamps), size.ok() ? *size : ModuleSize{}, *module, settled});
  }
  return module;
}

Result<std::shared_ptr<const Module>> ModuleLoader::blend(const Assembled& from,
                                                          const Lambdas& lambda, Job* job) {
  CHIMERA_RETURN_IF_ERROR(from.source->check_unchanged());
  const Result<AssemblyPlan> plan = from.source->plan(lambda);
  if (!plan.ok()) return plan.status();
  const auto manifest = std::make_shared<const Manifest>(from.manifest);
  if (job != nullptr) job->begin(manifest);
  auto stamps = stamps_of(from.dir, from.manifest);
  const auto fitted = with_precision(info_, from.manifest, from.precision);
  if (!fitted.ok()) return fitted.status();
  const ModuleSize size = assembled_size(*plan, *fitted);
  const ModuleOptions options{lambda, from.precision, {}};
  Result<std::shared_ptr<const Module>> module = load_new(
      *manifest, size, 1,
      [&] { return blend_module(from.source, from.manifest, from.dir, options, info_); }, job);
  if (job != nullptr) job->end(manifest.get());
  if (module.ok() && stamps_of(from.dir, from.manifest) == stamps) {
    remember(from.dir, {manifest, std::move(stamps), size, *module, false});
  }
  return module;
}

Result<ModuleLoader::Outline> ModuleLoader::outline(const std::string& dir,
                                                    const ModuleOptions& options,
                                                    const Accept& accept) const {
  if (auto known = known_outline(dir, options)) {
    if (accept) CHIMERA_RETURN_IF_ERROR(accept(dir, *known->manifest));
    return std::move(*known);
  }
  const auto accepted = accepted_manifest(dir, accept);
  if (!accepted.ok()) return accepted.status();
  const std::shared_ptr<const Manifest>& manifest = *accepted;
  const auto fitted = with_precision(info_, *manifest, options.precision);
  if (!fitted.ok()) return fitted.status();
  Reusable known = reusable(dir, *manifest, stamps_of(dir, *manifest), options);
  if (manifest->assembly) return outline_assembly(dir, manifest, std::move(known.module), options);
  if (!options.lambda.empty()) return no_parents(*manifest);
  CHIMERA_RETURN_IF_ERROR(check_weight(*manifest, options.weight));
  if (info_.libraries && manifest->library) {
    CHIMERA_RETURN_IF_ERROR(info_.libraries->check_demands(manifest->name, *manifest->library));
  }
  if (known.module != nullptr) return Outline{manifest, known.size, std::move(known.module), {}};
  CHIMERA_RETURN_IF_ERROR(check_outline(dir, *manifest, info_.config, info_.fingerprint));
  const Result<ModuleSize> size = size_of(dir, *manifest, *fitted);
  if (!size.ok()) return size.status();
  return Outline{manifest, *size, nullptr, {}};
}

std::optional<ModuleLoader::Outline> ModuleLoader::known_outline(
    const std::string& dir, const ModuleOptions& options) const {
  std::shared_ptr<const Manifest> manifest;
  {
    const MutexLock lock(mutex_);
    const auto known = known_.find(dir);
    if (known == known_.end() || !known->second.settled) return std::nullopt;
    manifest = known->second.manifest;
  }
  // Parents, and what libraries may demand, are no files of it.
  if (manifest->assembly || manifest->library) return std::nullopt;
  Reusable known = reusable(dir, *manifest, stamps_of(dir, *manifest), options);
  if (known.module == nullptr) return std::nullopt;
  return Outline{std::move(manifest), known.size, std::move(known.module), {}};
}

Result<ModuleLoader::Outline> ModuleLoader::outline_assembly(
    const std::string& dir, std::shared_ptr<const Manifest> manifest,
    std::shared_ptr<const Module> loaded, const ModuleOptions& options) const {
  const auto fitted = with_precision(info_, *manifest, options.precision);
  if (!fitted.ok()) return fitted.status();
  const auto source = AssemblySource::open(dir, *manifest);
  if (!source.ok()) return source.status().with_context("module " + manifest->name);
  CHIMERA_RETURN_IF_ERROR(check_assembly_outline(**source, *manifest, info_));
  auto wanted = complete_lambdas((*source)->recipe(), (*source)->lambdas(), options.lambda);
  if (!wanted.ok()) return wanted.status().with_context("module " + manifest->name);
  const Result<AssemblyPlan> plan = (*source)->plan(*wanted);
  if (!plan.ok()) return plan.status();
  if (*wanted == (*source)->lambdas()) wanted->clear();
  return Outline{std::move(manifest), assembled_size(*plan, *fitted), std::move(loaded),
                 std::move(*wanted)};
}

Result<std::shared_ptr<const Module>> ModuleLoader::gates_of(const std::string& dir,
                                                             const Manifest& manifest) const {
  if (manifest.kind != ModuleKind::kWeights && manifest.kind != ModuleKind::kBundle)
    return std::shared_ptr<const Module>();
  return gates_of_module(dir, manifest, info_);
}

Result<MadeBytes> ModuleLoader::average_bytes(std::span<const Placed> bundles) const {
  std::vector<std::vector<SharedChange>> read;
  for (const auto& [dir, manifest] : bundles) {
    auto changes = bundle_changes(dir, *manifest, info_.config);
    if (!changes.ok()) return changes.status();
    read.push_back(std::move(*changes));
  }
  if (read.size() < 2 || info_.source == nullptr) return MadeBytes{};
  const std::vector<std::span<const SharedChange>> changes(read.begin(), read.end());
  return chimera::average_bytes(*info_.source, changes);
}

Result<std::shared_ptr<const Module>> ModuleLoader::read(const Manifest& manifest, const Make& make,
                                                         Job* job) {
  const bool alone = manifest.library && manifest.library->isolation == Isolation::kInProcess;
  const ProgressScope counted(job == nullptr ? nullptr : job->progress());
  const ReadingTurn turn(&reading_, alone, manifest.name);
  CHIMERA_RETURN_IF_ERROR(turn.status());
  Result<std::shared_ptr<const Module>> module = make();
  // What was left in the middle fails in ways of its own.
  if (job != nullptr) CHIMERA_RETURN_IF_ERROR(job->still_wanted());
  return module;
}

Result<std::shared_ptr<const Module>> ModuleLoader::load_new(const Manifest& manifest,
                                                             const Result<ModuleSize>& sized,
                                                             int read_times, const Make& make,
                                                             Job* job) {
  if (job != nullptr) CHIMERA_RETURN_IF_ERROR(job->still_wanted());
  if (sized.status().code() == Code::kResourceExhausted) return sized.status();
  // Files that cannot be sized cannot be loaded either, and the loader says best why.
  const ModuleSize size = sized.ok() ? *sized : ModuleSize{};
  auto loading = places_.take(manifest, size.loading, job);
  if (!loading.ok()) return loading.status();
  Ledger::Place& place = (*loading)->place;
  const auto start = Clock::now();
  if (job != nullptr) {
    job->progress()->expect(static_cast<uint64_t>(read_times) * size.files);
    job->enter(JobPhase::kReading);
  }
  Result<std::shared_ptr<const Module>> loaded = read(manifest, make, job);
  log::debug("load_payload", {{"module", manifest.name},
                              {"ms", ms_since(start)},
                              {"result", code_name(loaded.status().code())}});
  if (!loaded.ok()) return loaded.status();
  place.correct(std::max(size.resident, (*loaded)->resident_bytes()));
  auto counted = std::make_shared<Counted>(Counted{std::move(place), std::move(*loaded)});
  const std::shared_ptr<const Module> module(counted, counted->module.get());
  if (job != nullptr) job->enter(JobPhase::kProbing);
  CHIMERA_RETURN_IF_ERROR(probe(module));
  return adapters_ != nullptr && module->is_adapter() ? registered(*module) : module;
}

Result<ModuleSize> ModuleLoader::size_of(const std::string& dir, const Manifest& manifest,
                                         const BackboneInfo& info) const {
  Result<ModuleSize> size = module_size(dir, manifest, info);
  if (!size.ok() || adapters_ == nullptr || manifest.kind != ModuleKind::kLora) return size;
  CHIMERA_RETURN_IF_ERROR(adapters_->check_size(manifest.name, size->resident));
  size->resident = 0;
  return size;
}

std::shared_ptr<const Module> ModuleLoader::registered(const Module& module) const {
  auto out = std::make_shared<Module>(module);
  const uint64_t bytes = module.adapter->bytes;
  const auto read = [info = reading_info_, dir = module.dir, manifest = module.manifest,
                     bytes]() -> Result<std::shared_ptr<const Adapter>> {
    auto adapter = read_lora_adapter(dir, manifest, bytes, *info);
    if (adapter.ok()) return adapter;
    const Status& why = adapter.status();
    log::warning("adapter_not_read", {{"module", manifest.name}, {"reason", why.message()}});
    // For clients: where it lies is not for them.
    std::string told = why.message();
    for (size_t at = 0; (at = told.find(dir + "/")) != std::string::npos;)
      told.erase(at, dir.size() + 1);
    return Status(
        why.code() == Code::kResourceExhausted ? why.code() : Code::kDataCorrupt,
        fmt::format("module {}: its files are not what was loaded: {}", manifest.name, told),
        "have it loaded again, or its files put back; other modules are not concerned");
  };
  out->adapter_source = adapters_->add(module.name(), std::exchange(out->adapter, nullptr), read);
  return out;
}

std::vector<ModuleLoader::Stamp> ModuleLoader::stamps_of(const std::string& dir,
                                                         const Manifest& manifest) {
  std::vector<Stamp> stamps;
  const auto add = [&](const std::string& path) {
    struct stat s {};
    if (lstat(path.c_str(), &s) != 0) return stamps.push_back({});
    const auto ns = [](const timespec& t) { return int64_t{t.tv_sec} * 1'000'000'000 + t.tv_nsec; };
    stamps.push_back(
        {s.st_dev, s.st_ino, static_cast<uint64_t>(s.st_size), ns(s.st_ctim), ns(s.st_mtim)});
  };
  add(dir + "/module.yaml");
  for (const ManifestFile& file : manifest.files) add(dir + "/" + file.path);
  return stamps;
}

ModuleLoader::Reusable ModuleLoader::reusable(const std::string& dir, const Manifest& manifest,
                                              const std::vector<Stamp>& stamps,
                                              const ModuleOptions& options) const {
  const MutexLock lock(mutex_);
  const auto at = known_.find(dir);
  if (at == known_.end()) return {};
  const Known& known = at->second;
  if (known.manifest->digest != manifest.digest || known.stamps != stamps) return {};
  auto module = known.module.lock();
  if (module != nullptr && !made_the_same(*module, options)) return {};
  // The code of a library in quarantine is not started again; a new object may be, or is refused
  // with the reason.
  const bool shut_out = module != nullptr && module->library != nullptr &&
                        module->library->status().state == LibraryState::kQuarantined;
  return shut_out ? Reusable{} : Reusable{std::move(module), known.size};
}

void ModuleLoader::remember(const std::string& dir, Known known) {
  const MutexLock lock(mutex_);
  known_[dir] = std::move(known);
  if (known_.size() <= kRemembered) return;
  std::erase_if(known_, [](const auto& entry) { return entry.second.module.expired(); });
}

Status ModuleLoader::probe(const std::shared_ptr<const Module>& module) {
  // load_module compared the digests of the very bytes in use with the manifest, so its digest
  // stands for the content; backbone and its precision are this process's own.
  std::string digest = module->manifest.digest;
  if (!module->lambda.empty()) digest += " " + lambdas_text(module->lambda);
  if (module->asked_precision) {
    digest += " precision ";
    digest += kPrecisionNames.name(*module->asked_precision);
  }
  const auto passed = [&] {
    const MutexLock lock(mutex_);
    const auto known = std::find(verdicts_.begin(), verdicts_.end(), digest);
    if (known != verdicts_.end()) verdicts_.splice(verdicts_.begin(), verdicts_, known);
    return known != verdicts_.end();
  };
  if (passed()) {
    log::debug("load_probe", {{"module", module->name()}, {"result", "known"}});
    return {};
  }
  const auto start = Clock::now();
  const Status status = run_probe(module);
  log::debug(
      "load_probe",
      {{"module", module->name()}, {"ms", ms_since(start)}, {"result", code_name(status.code())}});
  if (!status.ok()) return status;
  const MutexLock lock(mutex_);
  verdicts_.push_front(digest);
  bound(&verdicts_);
  return {};
}

Result<ScoreText> ModuleLoader::probe_input(const Manifest& manifest) const {
  const ModelConfig& config = info_.config;
  const Tokenizer* tokenizer = model_.tokenizer.get();
  if (!manifest.probe_text.empty() && tokenizer != nullptr) {
    Result<ScoreText> text = score_text(*tokenizer, score_prefix_token(tokenizer, config),
                                        manifest.probe_text, "probe.text");
    if (!text.ok()) return text;
    const auto n = static_cast<int64_t>(text->tokens.size());
    if (n > config.max_position_embeddings) {
      return Status(Code::kInvalidArgument,
                    fmt::format("probe.text: found {} tokens (expected at most {}, the context of "
                                "the backbone)",
                                n, config.max_position_embeddings));
    }
    if (n >= 2) return text;
  }
  ScoreText ids;
  const int64_t n = std::min(kTokenProbe, config.max_position_embeddings);
  // Spread over the vocabulary; 7919 is prime, so ids do not repeat early.
  for (int64_t i = 0; i < n; ++i) {
    ids.tokens.push_back(static_cast<int32_t>((i * 7919 + 1) % config.vocab_size));
  }
  return ids;
}

Status ModuleLoader::run_probe(const std::shared_ptr<const Module>& module) {
  ++probes_run_;
  const Manifest& manifest = module->manifest;
  const std::string context = "module " + manifest.name + ": probe";
  const Result<ScoreText> input = probe_input(manifest);
  if (!input.ok()) return input.status().with_context(context);

  Composition alone;
  alone.backbone_fingerprint = model_.fingerprint;
  alone.modules.push_back({manifest.name, manifest.version, manifest.digest, module->dir, true,
                           0.0f, module->lambda, module->asked_precision, module->asked_weight});
  const auto table = builder_.build(0, alone, std::span(&module, 1));
  if (!table.ok()) return table.status();

  const auto start = std::chrono::steady_clock::now();
  const Result<ProbeResult> first = probe_score(*model_.backbone, *table, input->tokens);
  if (!first.ok()) return probe_failure(*module, first.status().with_context(context));
  if (!first->finite) {
    return {Code::kDataCorrupt,
            context + ": found values that are not finite (expected numbers)" +
                (first->why.empty() ? "" : ": " + first->why),
            "Its weights overflow on this backbone; load a corrected version"};
  }
  // Of a blend it is left out: its parents were repeatable, and a knob is to be quick.
  const bool cheap = std::chrono::steady_clock::now() - start < kCheapProbe;
  if (cheap && module->lambda.empty()) {
    const Result<ProbeResult> second = probe_score(*model_.backbone, *table, input->tokens);
    if (!second.ok()) return probe_failure(*module, second.status().with_context(context));
    if (second->logits_digest != first->logits_digest) {
      return {Code::kDataCorrupt,
              context + ": found another result on repetition (expected the same bits)",
              "Check the memory of this machine"};
    }
  }
  if (!manifest.probe_max_bits_per_byte) return {};
  if (input->bytes == 0) {
    log::warning("probe_bound_not_checked",
                 {{"module", manifest.name}, {"reason", "the backbone has no tokenizer"}});
    return {};
  }
  const double bits = first->nats / std::numbers::ln2 / static_cast<double>(input->bytes);
  if (bits <= *manifest.probe_max_bits_per_byte) return {};
  return {Code::kFailedPrecondition,
          fmt::format("{}: found {:.3f} bits per byte (expected at most {}, as module.yaml says)",
                      context, bits, *manifest.probe_max_bits_per_byte),
          "The module does not do on this backbone what it promises; ask its owner"};
}

}  // namespace chimera
