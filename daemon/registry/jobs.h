// Changes that load are jobs: each has an id, tells how far it is, and can be given up.
//
// Phases follow one another; a job of several modules is in the one that its last module entered.
// Bytes are those of the modules' files; half of one counts when it is read, the other half when it
// is verified. Nothing counts for the time that packing and probing take.
//
// Thread safety: all of it from any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/enum_names.h"
#include "base/status.h"
#include "base/threads/mutex.h"
#include "base/threads/progress.h"
#include "experts/module/manifest.h"

namespace chimera {

enum class JobPhase : uint8_t {
  kWaiting,     // for what was asked for before it
  kReading,     // and verifying
  kProbing,     // what it loaded
  kPublishing,  // or waiting for a free epoch
  kDone,
  kFailed,
  kCancelled
};
inline constexpr auto kJobPhaseNames = enum_names<JobPhase>(
    "waiting", "reading", "probing", "publishing", "done", "failed", "cancelled");

/// A job as it is, or as it ended.
struct JobStatus {
  std::string id;
  std::string call;                  // "load", "apply", "rollback"
  std::vector<std::string> modules;  // names, as far as the manifests tell
  JobPhase phase = JobPhase::kWaiting;
  uint64_t bytes = 0, bytes_total = 0;
  std::optional<double> seconds_left;  // while reading, once some of it is done
  double seconds = 0.0;                // since it was asked for, or that it took
  uint64_t epoch = 0;                  // that it published
  Status outcome;
};

class Job {
 public:
  /// `still_wanted` as Asker's; may be empty. `on_progress` is called on the threads that load, at
  /// most ten times a second and when the phase changes; may be empty.
  Job(uint64_t turn, std::string call, std::vector<std::string> modules,
      std::function<Status()> still_wanted, std::function<void(const JobStatus&)> on_progress);

  /// "job-17", of the place of the change among all that was asked for.
  const std::string& id() const { return id_; }
  uint64_t turn() const { return turn_; }
  Progress* progress() { return &progress_; }

  /// Ends it as `cancelled` at its next step; false when it was published or ended before.
  bool cancel();
  Status still_wanted() const;
  /// Tells those who work for it when it is not wanted any more: they may be waiting, and not ask.
  void give_up_unwanted() {
    if (!still_wanted().ok()) progress_.give_up();
  }

  void enter(JobPhase phase);
  /// A module of it is being loaded; until end().
  void begin(std::shared_ptr<const Manifest> manifest);
  void end(const Manifest* manifest);
  std::vector<std::shared_ptr<const Manifest>> loading() const;

  JobStatus status() const;

 private:
  using Clock = std::chrono::steady_clock;
  void tell() const;

  const uint64_t turn_;
  const std::string id_, call_;
  const std::vector<std::string> modules_;
  const std::function<Status()> still_wanted_;
  const std::function<void(const JobStatus&)> on_progress_;
  const Clock::time_point asked_ = Clock::now();
  Progress progress_;
  std::atomic<JobPhase> phase_{JobPhase::kWaiting};
  mutable Mutex mutex_;
  std::vector<std::shared_ptr<const Manifest>> loading_ GUARDED_BY(mutex_);
  Clock::time_point began_ GUARDED_BY(mutex_);  // reading
};

/// Those in progress, and how the last ones ended.
class Jobs {
 public:
  static constexpr size_t kRemembered = 64;

  void add(const std::shared_ptr<Job>& job);
  void end(const std::shared_ptr<Job>& job, const Status& outcome, uint64_t epoch);
  /// Job::give_up_unwanted() of those in progress.
  void give_up_unwanted() const;
  /// Null when none of that id is in progress.
  std::shared_ptr<Job> find(const std::string& id) const;
  std::vector<std::shared_ptr<Job>> running() const;  // oldest first
  /// The ended ones, oldest first, and then those in progress.
  std::vector<JobStatus> list() const;

 private:
  mutable Mutex mutex_;
  std::list<std::shared_ptr<Job>> running_ GUARDED_BY(mutex_);
  std::list<JobStatus> ended_ GUARDED_BY(mutex_);
};

}  // namespace chimera
