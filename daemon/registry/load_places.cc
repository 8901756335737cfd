#include "daemon/registry/load_places.h"

#include <chrono>

namespace chimera {
namespace {

// How soon one that waits notices that nobody wants it any more.
constexpr std::chrono::milliseconds kLook{50};

}  // namespace

Result<std::unique_ptr<LoadPlaces::Loading>> LoadPlaces::take(const Manifest& manifest,
                                                              uint64_t bytes, Job* job) {
  const std::string name = manifest.name + " " + manifest.version;
  ReleasableMutexLock lock(mutex_);
  for (;;) {
    Result<Ledger::Place> taken = Ledger::Place();
    if (ledger_ != nullptr) {
      taken = ledger_->take(MemoryUse::kModule, name, bytes, "module " + manifest.name);
    }
    if (taken.ok()) {
      ++loading_;
      return std::make_unique<Loading>(this, std::move(*taken));
    }
    // Before it waits for others, and again whenever it looks: a plan may have ended meanwhile.
    const int before = loading_;  // of when there was no room: who ended since has made some
    lock.unlock();
    const bool gave_way = kept_->let_go();
    lock.lock();
    if (gave_way) continue;
    if (before == 0) return taken.status();
    ended_.wait_for(mutex_, kLook, [&]() REQUIRES(mutex_) { return loading_ < before; });
    if (job != nullptr) CHIMERA_RETURN_IF_ERROR(job->still_wanted());
  }
}

Status LoadPlaces::check(const std::string& label, uint64_t bytes) const {
  if (ledger_ == nullptr) return {};
  Status status = ledger_->check(bytes, label);
  if (!status.ok() && kept_->let_go()) status = ledger_->check(bytes, label);
  return status;
}

void LoadPlaces::end() {
  const MutexLock lock(mutex_);
  --loading_;
  ended_.notify_all();
}

}  // namespace chimera
