// The record of who did what: one JSON object a line, appended to audit.jsonl of a directory of its
// own. A full file is renamed after its time and kept; the oldest go.
//
// An entry that is asked to be durable is on disk when append() returns. What cannot be written is
// told in the ordinary log, once per run of failures, and holds up nobody: taking a module out must
// win on a full disk, too.
//
// Thread safety: all methods may be called from any thread. append() without `durable` waits for
// no disk but the write into the page cache.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/json/json.h"
#include "base/status.h"
#include "base/threads/mutex.h"

namespace chimera {

struct AuditEntry {
  std::chrono::system_clock::time_point time;  // when the call came
  std::string principal;                       // who; "" when nobody we know
  std::string peer;                            // where from, as the kernel says it
  std::string call;                            // "" when it could not be read
  std::string endpoint;                        // "serve" or "control"
  Json arguments;                              // of control calls; never prompts
  std::string result;                          // "ok" or a status code
  std::string message;                         // of a refusal or failure
  uint64_t epoch_before = 0, epoch_after = 0;
  double ms = 0.0;
};

class AuditLog {
 public:
  struct Options {
    std::string directory;  // made 0700
    uint64_t max_file_bytes = uint64_t{64} << 20;
    size_t max_files = 16;  // full ones
  };
  static Result<std::unique_ptr<AuditLog>> open(Options options);
  ~AuditLog();
  AuditLog(const AuditLog&) = delete;
  AuditLog& operator=(const AuditLog&) = delete;

  void append(const AuditEntry& entry, bool durable);

  /// The newest `limit` entries since then (seconds of UTC), oldest first. Lines that are no
  /// entries, as a loss of power may leave one, are left out.
  Result<std::vector<Json>> read(int64_t since, size_t limit) const;

 private:
  explicit AuditLog(Options options) : options_(std::move(options)) {}
  Status open_file() REQUIRES(mutex_);
  Status rotate() REQUIRES(mutex_);
  Status write_line(const std::string& line, bool durable);
  std::string current() const;
  std::vector<std::string> full_files() const;  // by age, the oldest first

  const Options options_;
  mutable Mutex mutex_;
  std::shared_ptr<const int> file_ GUARDED_BY(mutex_);  // closes with its last holder
  uint64_t bytes_ GUARDED_BY(mutex_) = 0;
  bool failing_ GUARDED_BY(mutex_) = false;
};

}  // namespace chimera
