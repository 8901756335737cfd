// Crash-safe memory of acknowledged compositions (design invariant 8).
//
// Each generation is one file: a header line with format, generation, length and CRC-32C, then
// JSON. Written as temp file in the same directory, fsync, rename, fsync of the directory; the
// previous generations are kept. On start the highest one is taken. When it cannot be read, an
// acknowledged change would be lost with it: nothing is guessed, a person says so by renaming it to
// NAME.corrupt, and then the one before is taken. A failed fsync is final for that file: it is
// never retried on the same descriptor.
//
// One directory serves every backbone that is run with it: records are told apart by the
// fingerprint of their backbone, each backbone keeps its own history, and epochs count on over all
// of them.
//
// A lock file (flock) keeps a second daemon out of the same directory.
//
// Thread safety: one writer at a time (the registry's worker); readers get copies.
#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "base/io/env.h"
#include "base/status.h"
#include "router/composition.h"

namespace chimera {

struct EpochRecord {
  uint64_t epoch = 0;
  std::string time;  // RFC 3339, UTC
  Composition composition;
  /// Where in the history a rollback from here begins: a record that repeats an earlier one (a
  /// rollback, a restart) stands at the place of that one. 0: at its own.
  uint64_t origin = 0;
  /// Modules revoked and not loaded again since, by name: no rollback brings them back.
  std::vector<std::string> revoked;
  /// Digests, by name, of modules that a person unloaded or replaced and nobody loaded since: a
  /// watched directory in which they lie does not bring them back.
  std::map<std::string, std::string> set_aside;

  uint64_t place() const { return origin == 0 ? epoch : origin; }
};

class StateStore {
 public:
  /// Creates `dir` (0700) if needed, takes the lock, reads the newest generation.
  /// failed_precondition when another daemon holds the lock (naming its pid); data_corrupt when
  /// that generation is damaged.
  static Result<std::unique_ptr<StateStore>> open(const std::string& dir, Env& env);
  ~StateStore();

  /// The recorded history of all backbones, oldest first; empty on first start.
  std::vector<EpochRecord> history() const;
  /// The records of one backbone.
  std::vector<EpochRecord> history_of(const std::string& fingerprint) const;
  /// Appends, in order, and makes durable with one write; on failure nothing changed on disk or in
  /// memory. Keeps the last
  /// `kHistory` records of each backbone and `kAllHistory` in all; beyond those, the backbone that
  /// was not run for longest is forgotten first.
  Status append(std::vector<EpochRecord> records);
  Status append(EpochRecord record) { return append(std::vector<EpochRecord>{std::move(record)}); }
  static constexpr size_t kHistory = 64;
  static constexpr size_t kAllHistory = 192;
  /// Takes the last append() back: it was written before publishing, and publishing was refused.
  /// In memory always; ok when on disk as well (else the next append puts that right). Its epochs
  /// stay used up.
  Status retract();
  /// Notes that epochs up to this one were handed out, without a record: of a composition that is
  /// tried and not current. On failure nothing changed.
  Status reserve(uint64_t epoch);
  /// What reading found amiss (a generation that was set aside); for the log.
  const std::vector<std::string>& warnings() const;
  /// Highest epoch ever handed out; epochs continue above it after a restart.
  uint64_t last_epoch() const;

 private:
  struct Impl;
  explicit StateStore(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace chimera
