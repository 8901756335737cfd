// Crash-safe memory of acknowledged compositions (design invariant 8).
//
// Each generation is one file: a header line with format, generation, length and CRC-32C, then
// JSON. Written as temp file in the same directory, fsync, rename, fsync of the directory; the
// previous generations are kept for `rollback` and as fallback. On start the highest valid one is
// taken. A failed fsync is final for that file: it is never retried on the same descriptor.
//
// A lock file (flock) keeps a second daemon out of the same directory.
//
// Thread safety: one writer at a time (the registry's worker); readers get copies.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/io/env.h"
#include "base/status.h"
#include "router/composition.h"

namespace chimera {

struct EpochRecord {
  uint64_t epoch = 0;
  std::string time;  // RFC 3339, UTC
  Composition composition;
};

class StateStore {
 public:
  /// Creates `dir` (0700) if needed, takes the lock, reads the newest valid generation.
  /// failed_precondition when another daemon holds the lock (naming its pid); data_corrupt when
  /// there are generations but none can be read.
  static Result<std::unique_ptr<StateStore>> open(const std::string& dir, Env& env);
  ~StateStore();

  /// The recorded history, oldest first; empty on first start.
  std::vector<EpochRecord> history() const;
  /// Appends and makes durable; on failure nothing changed on disk or in memory. Keeps the last
  /// `kHistory` records.
  Status append(EpochRecord record);
  static constexpr size_t kHistory = 64;
  /// Takes the newest record back: it was written before publishing, and publishing was refused.
  /// In memory always; ok when on disk as well (else the next append puts that right). Its epoch
  /// stays used up.
  Status retract();
  /// What reading found amiss (a corrupt generation that an older one replaced); for the log.
  const std::vector<std::string>& warnings() const;
  /// Highest epoch ever handed out; epochs continue above it after a restart.
  uint64_t last_epoch() const;

 private:
  struct Impl;
  explicit StateStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace chimera
