// The backbones of several bundles together. Each is made once while anybody uses it, on a thread
// of its own and when somebody wants it: tables and requests that may use the same bundles share
// it, whatever else they use.
//
// An average that nobody uses any more stays for the next request of its kind while its bundles are
// those of the current composition, and gives way: to another one beyond kMost, to whoever finds no
// memory, and to a change of the modules in use. One that is being made is made to its end for that
// next request even if nobody waits any more: else clients that wait for less than it takes would
// keep it from ever being there.
//
// Invariants: (1) an average that is ready stays as it is for as long as somebody has it; (2)
// making one that failed is tried again by whoever wants it next; (3) neither a bundle nor an
// average of it is kept in memory here once it is not among the current ones.
//
// Thread safety: all of Averages and Average from any thread. Averages outlive those that are begun
// or waited for; the mutex is not held while one is made.
#pragma once

#include <atomic>
#include <cstdint>
#include <functional>
#include <list>
#include <memory>
#include <optional>
#include <span>
#include <vector>

#include "backbone/backbone.h"
#include "base/status.h"
#include "base/threads/mutex.h"
#include "base/threads/progress.h"
#include "base/threads/worker_pool.h"
#include "experts/kinds/module.h"

namespace chimera {

class Averages;

/// Who has an average made: requests, whose choices are many, or a change of the composition, which
/// they must not hold back.
enum class AverageFor : uint8_t { kRequest, kComposition };

/// The wish of somebody for the backbone of some bundles together, for as long as it lives.
class Average : public std::enable_shared_from_this<Average> {
 public:
  ~Average();
  Average(const Average&) = delete;
  Average& operator=(const Average&) = delete;

  bool ready() const { return state_.load(std::memory_order_acquire) == State::kReady; }
  /// REQUIRES: ready().
  const Backbone& backbone() const { return *backbone_; }
  /// Has it made, unless that is under way; again when it failed before. For a request it is
  /// refused beyond Averages::kMost; once for a composition, never again.
  void begin(AverageFor whom);
  /// begin(), and waits: why it cannot be made.
  Status wait(AverageFor whom);
  /// How the last attempt ended when it failed; nothing while one is under way.
  std::optional<Status> failure() const;

 private:
  friend class Averages;
  enum class State : uint8_t { kIdle, kUnderWay, kReady, kFailed };
  using Bundles = std::vector<std::weak_ptr<const Module>>;
  Average(Averages* averages, Bundles bundles)
      : averages_(averages), bundles_(std::move(bundles)) {}

  Averages* const averages_;
  const Bundles bundles_;  // in the order of the composition; not kept alive
  std::atomic<State> state_{State::kIdle};
  Status failure_;                            // by the mutex of averages_
  bool of_composition_ = false;               // likewise
  std::shared_ptr<Progress> making_;          // likewise, while it is under way
  std::shared_ptr<const Backbone> backbone_;  // not changed once it is ready
};

class Averages {
 public:
  using Modules = std::span<const std::shared_ptr<const Module>>;
  /// Makes the backbone of these bundles, two or more, in their order.
  using Make = std::function<Result<std::shared_ptr<const Backbone>>(Modules bundles)>;
  /// Averages of requests in use at a time, and of all, as long as any is kept that nobody uses:
  /// each takes memory, and a pass of its own in every step that it is used in. Those of
  /// compositions are as many as there are epochs, which have a bound of their own.
  static constexpr size_t kMost = 8;

  /// `make` null: averaged_backbone() as it is.
  explicit Averages(Make make = nullptr);
  Averages(const Averages&) = delete;
  Averages& operator=(const Averages&) = delete;

  /// The average of `bundles`, two or more, not begun if it is a new one.
  std::shared_ptr<Average> of(Modules bundles) EXCLUDES(mutex_);
  /// Whether that average is made already.
  bool has(Modules bundles) const EXCLUDES(mutex_);
  /// What is current from now on. All that was kept and nobody uses goes.
  void set_current(Modules modules) EXCLUDES(mutex_);
  /// Lets go of the one that nobody uses for the longest time; false when there is none.
  bool let_go_one() EXCLUDES(mutex_);
  /// What let_go_one() would free, one after the other: what they hold beside `base`, bytes.
  uint64_t idle_bytes(const Backbone& base) const EXCLUDES(mutex_);
  /// Makes no more: waits for the one under way, which is given up. Before its last owner goes, who
  /// may be on the very thread that makes them. Once.
  void stop() EXCLUDES(mutex_);

 private:
  friend class Average;
  using Made = Result<std::shared_ptr<const Backbone>>;
  void begin(Average& average, AverageFor whom) EXCLUDES(mutex_);
  Status wait(Average& average, AverageFor whom) EXCLUDES(mutex_);
  std::optional<Status> failure(const Average& average) const EXCLUDES(mutex_);

  std::shared_ptr<Average> find(Modules bundles) const REQUIRES(mutex_);
  /// Puts it first among those that are kept, if it may stay.
  void touch(const std::shared_ptr<Average>& average) REQUIRES(mutex_);
  /// Takes the least recently used out that nobody else has; null when there is none.
  std::shared_ptr<Average> take_idle() REQUIRES(mutex_);
  /// Whether nobody has it but kept_.
  static bool idle(const std::shared_ptr<Average>& kept);
  /// Room for one more, for which an idle one goes to `gone`. resource_exhausted when it is for a
  /// request and as many of these are in use as may be.
  Status make_room(bool of_composition, std::shared_ptr<Average>* gone) REQUIRES(mutex_);
  void end(Average& average, Made made) REQUIRES(mutex_);
  Made make(const Average::Bundles& bundles) const;

  const Make make_;
  mutable Mutex mutex_;
  CondVar ended_;
  std::vector<std::weak_ptr<Average>> known_ GUARDED_BY(mutex_);
  std::list<std::shared_ptr<Average>> kept_ GUARDED_BY(mutex_);  // last used first
  Average::Bundles current_ GUARDED_BY(mutex_);
  std::optional<WorkerPool> worker_;  // last: what runs on it uses the above; since it is needed
};

}  // namespace chimera
