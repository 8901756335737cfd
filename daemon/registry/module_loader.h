// From a module directory to a module that may enter a routing table: loaded, verified, probed.
//
// What was verified is remembered by content, so that loading the same bytes again is quick: an
// unchanged directory whose module is still in memory gives that object back, a content that was
// hashed is known by a faster tag (digest_memo.h), and one that passed its probe is not probed
// again. Nothing is remembered of failures, and that memory holds no
// module alive; what a plan loaded is kept for a while (kept_modules.h).
//
// Thread safety: all methods from any thread.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <utility>
#include <vector>

#include "base/threads/mutex.h"
#include "daemon/adapters/adapter_store.h"
#include "daemon/engine/score_text.h"
#include "daemon/memory/ledger.h"
#include "daemon/model/loaded_backbone.h"
#include "daemon/registry/jobs.h"
#include "daemon/registry/kept_modules.h"
#include "daemon/registry/load_places.h"
#include "daemon/registry/reading_turns.h"
#include "experts/assembly/source.h"
#include "experts/kinds/module.h"
#include "experts/kinds/size.h"
#include "experts/library/runtime.h"
#include "router/routing_table.h"

namespace chimera {

/// A module as a composition wants it.
struct WantedModule {
  std::string path;
  ModuleOptions options{};
};

class ModuleLoader {
 public:
  /// As BackboneInfo::accept; one that is made may remember what it saw for as long as it lives.
  using Accept = decltype(BackboneInfo::accept);
  using MakeAccept = std::function<Accept()>;

  /// Without `libraries`, modules of kind library are refused; without `ledger`, memory is not
  /// counted; without `accept`, every module is let in. A ledger outlives the loader.
  /// With `adapters`, those of modules of kind lora are in memory as it says; it outlives the
  /// loader.
  explicit ModuleLoader(LoadedBackbone model, std::shared_ptr<LibraryRuntime> libraries = nullptr,
                        Ledger* ledger = nullptr, MakeAccept accept = nullptr,
                        AdapterStore* adapters = nullptr);
  ~ModuleLoader();
  ModuleLoader(const ModuleLoader&) = delete;
  ModuleLoader& operator=(const ModuleLoader&) = delete;

  /// Of the backbone that all modules are loaded for.
  const std::string& fingerprint() const { return model_.fingerprint; }
  const ModelConfig& config() const { return info_.config; }
  /// Makes tables of that backbone and of what load() gave.
  const RoutingTableBuilder& builder() const { return builder_; }
  LibraryStats library_stats() const;
  /// Which of the backbone's experts are in memory; null where all always are.
  ExpertResidency* residency() const { return model_.base->residency.get(); }

  /// `dir` is absolute and normal. On failure nothing is kept. resource_exhausted, before any
  /// weight is read, when the module does not fit the ledger's budget, and would not either once
  /// what is being loaded beside it is through; it keeps its place there for as long as anybody
  /// keeps the module. `job` is told how far it is and asked whether to go on;
  /// it may be null.
  Result<std::shared_ptr<const Module>> load(const std::string& dir, Job* job = nullptr,
                                             const ModuleOptions& options = {});

  /// What a loaded module of kind assembly is made of; does not keep its experts alive.
  struct Assembled {
    std::shared_ptr<const AssemblySource> source;
    Manifest manifest;
    std::string dir;
    std::optional<Precision> precision;  // asked for
  };
  /// load() of that module with the coefficients `lambda`, of all its parents, and without reading
  /// and verifying again what is open.
  Result<std::shared_ptr<const Module>> blend(const Assembled& from, const Lambdas& lambda,
                                              Job* job);

  /// As read_manifest(), but what is known already is not parsed again. `dir` as of load().
  Result<std::shared_ptr<const Manifest>> manifest_of(const std::string& dir) const
      EXCLUDES(mutex_);

  /// What a module is before it is loaded.
  struct Outline {
    std::shared_ptr<const Manifest> manifest;
    ModuleSize size;
    std::shared_ptr<const Module> loaded;  // not null: load() would give this
    Lambdas lambda;                        // that it would have; empty: those of its recipe
  };
  /// As far as manifest and headers tell, within milliseconds; `dir` and `options` as of load().
  /// What load() would refuse by these is refused here; digests, numbers and the probe are not
  /// looked at. `accept`: one for all modules of a plan, from new_accept().
  Result<Outline> outline(const std::string& dir, const ModuleOptions& options,
                          const Accept& accept) const;
  Accept new_accept() const { return make_accept_ ? make_accept_() : nullptr; }
  /// What outline() found and did not find loaded, as far as routing goes (gates_of_module); null
  /// for kinds whose gates only loading tells.
  Result<std::shared_ptr<const Module>> gates_of(const std::string& dir,
                                                 const Manifest& manifest) const;
  /// A module and the directory it lies in.
  using Placed = std::pair<std::string, std::shared_ptr<const Manifest>>;
  /// What the backbone of these modules of kind bundle together takes, by their headers.
  Result<MadeBytes> average_bytes(std::span<const Placed> bundles) const;
  /// resource_exhausted when so many bytes would not fit now, of what is called `label`. What was
  /// kept gives way.
  Status check_room(const std::string& label, uint64_t bytes) const {
    return places_.check(label, bytes);
  }
  /// What load() gave for a plan, for the loads of its apply.
  KeptModules& kept() { return kept_; }

  /// Modules that passed a probe so far (for tests).
  uint64_t probes_run() const { return probes_run_; }
  /// Files whose content was hashed in full so far (for tests).
  uint64_t contents_hashed() const { return info_.digests->hashed(); }

 private:
  // Identity of one file as far as the kernel tells: same stamp, same bytes.
  struct Stamp {
    uint64_t device = 0, inode = 0, size = 0;
    int64_t changed_ns = 0, modified_ns = 0;
    bool operator==(const Stamp&) const = default;
  };
  /// What load() last gave for a directory.
  struct Known {
    std::shared_ptr<const Manifest> manifest;
    std::vector<Stamp> stamps;
    ModuleSize size;
    std::weak_ptr<const Module> module;
    bool settled = false;  // the manifest had its stamp for long enough to be known by it
  };
  struct Reusable {
    std::shared_ptr<const Module> module;  // null: nothing is
    ModuleSize size;
  };

  static std::vector<Stamp> stamps_of(const std::string& dir, const Manifest& manifest);
  Reusable reusable(const std::string& dir, const Manifest& manifest,
                    const std::vector<Stamp>& stamps, const ModuleOptions& options) const
      EXCLUDES(mutex_);
  void remember(const std::string& dir, Known known) EXCLUDES(mutex_);
  /// What outline() gives of a module that is in memory, by the stamps of its files alone; nothing
  /// where they do not tell.
  std::optional<Outline> known_outline(const std::string& dir, const ModuleOptions& options) const
      EXCLUDES(mutex_);
  /// manifest_of(), let in by `accept` and complete.
  Result<std::shared_ptr<const Manifest>> accepted_manifest(const std::string& dir,
                                                            const Accept& accept) const
      EXCLUDES(mutex_);
  Result<Outline> outline_assembly(const std::string& dir, std::shared_ptr<const Manifest> manifest,
                                   std::shared_ptr<const Module> loaded,
                                   const ModuleOptions& options) const;
  using Make = std::function<Result<std::shared_ptr<const Module>>()>;
  /// Loads by `make`, counts, probes. `read_times`: how often every byte of its files is looked at.
  Result<std::shared_ptr<const Module>> load_new(const Manifest& manifest,
                                                 const Result<ModuleSize>& size, int read_times,
                                                 const Make& make, Job* job);
  Result<std::shared_ptr<const Module>> read(const Manifest& manifest, const Make& make, Job* job);
  /// module_size(); what an adapter takes after loading is the store's, and within its budget.
  Result<ModuleSize> size_of(const std::string& dir, const Manifest& manifest,
                             const BackboneInfo& info) const;
  /// The same module with its adapter in the care of the store.
  std::shared_ptr<const Module> registered(const Module& module) const;
  Status probe(const std::shared_ptr<const Module>& module) EXCLUDES(mutex_);
  Status run_probe(const std::shared_ptr<const Module>& module);
  Result<ScoreText> probe_input(const Manifest& manifest) const;

  const LoadedBackbone model_;
  const MakeAccept make_accept_;
  const BackboneInfo info_;
  const RoutingTableBuilder builder_;
  AdapterStore* const adapters_;
  /// For adapters, which may be read after the loader has gone: info_ without what concerns
  /// loading.
  const std::shared_ptr<const BackboneInfo> reading_info_;
  std::atomic<uint64_t> probes_run_{0};
  ReadingTurns reading_;
  KeptModules kept_;
  LoadPlaces places_;
  Ledger* const ledger_;
  mutable Mutex mutex_;
  std::map<std::string, Known> known_ GUARDED_BY(mutex_);  // by directory, bounded
  // What passed, most recent first, bounded: manifest digests, with λ where they are not the
  // recipe's and a precision that was asked for.
  std::list<std::string> verdicts_ GUARDED_BY(mutex_);
};

}  // namespace chimera
