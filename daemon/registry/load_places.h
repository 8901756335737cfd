// Memory for modules that are being loaded side by side. While it is loaded, a module takes more
// than it keeps, and it may fail or be given up: one that finds no room waits for those that are
// being loaded before it is refused.
//
// Thread safety: all methods from any thread. Outlives what it gave.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <utility>

#include "base/status.h"
#include "base/threads/mutex.h"
#include "daemon/memory/ledger.h"
#include "daemon/registry/jobs.h"
#include "daemon/registry/kept_modules.h"
#include "experts/module/manifest.h"

namespace chimera {

class LoadPlaces {
 public:
  /// A load in progress, for as long as it lives.
  class Loading {
   public:
    Loading(LoadPlaces* places, Ledger::Place taken) : place(std::move(taken)), places_(places) {}
    ~Loading() {
      place = {};  // before it is said to have ended
      places_->end();
    }
    Loading(const Loading&) = delete;
    Loading& operator=(const Loading&) = delete;

    Ledger::Place place;  // to be taken over by the module

   private:
    LoadPlaces* const places_;
  };

  /// Without a ledger there is room for everything. `kept` gives way to loads. Both outlive the
  /// places.
  LoadPlaces(Ledger* ledger, KeptModules* kept) : ledger_(ledger), kept_(kept) {}

  /// resource_exhausted when there is no room and nothing is being loaded. `job` is asked whether
  /// to go on waiting; it may be null.
  Result<std::unique_ptr<Loading>> take(const Manifest& manifest, uint64_t bytes, Job* job)
      EXCLUDES(mutex_);
  /// Whether there is room now, or once what was kept has given way, which it then has.
  Status check(const std::string& label, uint64_t bytes) const;

 private:
  void end() EXCLUDES(mutex_);

  Ledger* const ledger_;
  KeptModules* const kept_;
  Mutex mutex_;
  CondVar ended_;
  int loading_ GUARDED_BY(mutex_) = 0;
};

}  // namespace chimera
