// The record of who did what: one JSON object a line, appended to audit.jsonl of a directory of its
// own. A full file is renamed after its time and kept; the oldest go.
//
// Who has to know that an entry is on disk is told; entries that come while others are being synced
// share the next sync, so that many changes do not wait for the disk one after another. What cannot
// be written is told in the ordinary log, once per run of failures, and holds up nobody: taking a
// module out must win on a full disk, too.
//
// Thread safety: all methods may be called from any thread. append() waits for no disk but the
// write into the page cache.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <thread>
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
  /// All that append() was given is called before.
  ~AuditLog();
  AuditLog(const AuditLog&) = delete;
  AuditLog& operator=(const AuditLog&) = delete;

  void append(const AuditEntry& entry);
  /// The same; `then` is called once the entry is on disk or could not be brought there, in the
  /// order of the calls, on a thread of the log (or on this one when it could not be written).
  void append(const AuditEntry& entry, std::function<void()> then);

  /// The newest `limit` entries since then (seconds of UTC), oldest first. Lines that are no
  /// entries, as a loss of power may leave one, are left out.
  Result<std::vector<Json>> read(int64_t since, size_t limit) const;

  /// How often the disk was waited for (for tests).
  uint64_t syncs() const { return syncs_; }

 private:
  using File = std::shared_ptr<const int>;  // closes with its last holder
  struct Waiting {
    File file;
    std::function<void()> then;
  };

  explicit AuditLog(Options options) : options_(std::move(options)) {}
  Status open_file() REQUIRES(mutex_);
  Status rotate() REQUIRES(mutex_);
  /// Gives the file that has the line.
  Result<File> write_line(const std::string& line) EXCLUDES(mutex_);
  void run();
  Status sync(const std::vector<Waiting>& batch);
  /// Tells of the first of a run of failures. `entry` may be null: of several.
  void note(const Status& status, const AuditEntry* entry) EXCLUDES(mutex_);
  std::string current() const;
  std::vector<std::string> full_files() const;  // by age, the oldest first

  const Options options_;
  mutable Mutex mutex_;
  CondVar wake_;
  File file_ GUARDED_BY(mutex_);
  uint64_t bytes_ GUARDED_BY(mutex_) = 0;
  bool failing_ GUARDED_BY(mutex_) = false;
  std::vector<Waiting> waiting_ GUARDED_BY(mutex_);  // for the disk
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::atomic<uint64_t> syncs_{0};
  std::thread thread_;
};

}  // namespace chimera
