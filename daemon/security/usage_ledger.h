// UsageLedger: what each client took of each module, by the hour, to be billed.
//
// Kept in a directory of its own, a file usage-YYYY-MM-DD.jsonl for each day (UTC). What came
// within a second is one line, appended and synced, with a number that no other line has:
//
//   {"batch":"6a27…-17","rows":[{"hour":…,"client":"legal-team","module":"legal",…},…]}
//
// So after a crash at most the last second is missing, and nothing counts twice: a line is read as
// a whole or not at all, and once, however often it had to be written. A file that has grown is
// replaced by one with the sums of its lines, by renaming; so is that of a day when the next one
// begins. Files stay until somebody takes them away.
//
// Thread safety: all methods may be called from any thread. add() waits for no disk.
#pragma once

#include <chrono>
#include <compare>
#include <cstdint>
#include <deque>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <thread>
#include <vector>

#include "base/io/env.h"
#include "base/json/json.h"
#include "base/status.h"
#include "base/threads/mutex.h"
#include "daemon/engine/sequence/request.h"

namespace chimera {

/// Module of the rows that are the backbone's; its version is "".
inline constexpr std::string_view kBackboneUsage = "backbone";

struct UsageKey {
  int64_t hour = 0;  // seconds of UTC since 1970 of its beginning; 0 in sums over time
  std::string client, module, version;
  auto operator<=>(const UsageKey&) const = default;
};

struct UsageSum {
  uint64_t requests = 0;
  int64_t prompt_tokens = 0, completion_tokens = 0;
  uint64_t rows = 0;   // given to the module's experts
  double share = 0.0;  // of each request, summed
  void add(const UsageSum& other);
};
using UsageRows = std::map<UsageKey, UsageSum>;
Json to_json(const UsageKey& key, const UsageSum& sum);

class UsageLedger {
 public:
  struct Options {
    std::string directory;  // made 0700
    std::chrono::milliseconds interval{1000};
    uint64_t compact_bytes = uint64_t{4} << 20;  // grown by so much, a file is summed up
    Env* env = &Env::system();
  };
  static Result<std::unique_ptr<UsageLedger>> open(Options options);
  /// Writes what is left.
  ~UsageLedger();
  UsageLedger(const UsageLedger&) = delete;
  UsageLedger& operator=(const UsageLedger&) = delete;

  /// An answer, as its provenance tells of it. One for which nothing was computed counts nowhere.
  void add(const std::string& client, const DoneEvent& done);
  /// All hours that end after `since` (seconds of UTC), with what is not on disk yet.
  /// resource_exhausted beyond `most` rows.
  Result<UsageRows> read(int64_t since, size_t most = SIZE_MAX) const;
  /// Writes what came up to now.
  void flush();

 private:
  /// What is to stand in a file.
  struct Line {
    std::string file, text;
  };

  explicit UsageLedger(Options options);
  void work();
  void take_pending() REQUIRES(disk_mutex_);
  Status write_lines() REQUIRES(disk_mutex_);
  void compact(const std::string& file) REQUIRES(disk_mutex_);
  std::string file_of(int64_t hour) const;

  const Options options_;
  const std::string run_;  // tells the batches of this object from those of others

  mutable Mutex disk_mutex_;  // before mutex_: one at a time reads or writes files
  std::deque<Line> unwritten_ GUARDED_BY(disk_mutex_);
  uint64_t next_batch_ GUARDED_BY(disk_mutex_) = 1;
  std::string last_file_ GUARDED_BY(disk_mutex_);
  uint64_t compact_at_ GUARDED_BY(disk_mutex_);  // size of last_file_
  bool failing_ GUARDED_BY(disk_mutex_) = false;

  mutable Mutex mutex_;
  CondVar wake_;
  UsageRows pending_ GUARDED_BY(mutex_);
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace chimera
