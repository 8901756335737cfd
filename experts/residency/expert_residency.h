// Which experts of the checkpoint are in memory: those that somebody uses, and for a while those
// that somebody used.
//
// Whoever may run experts holds a lease on them (a routing table's set of candidates has one).
// Experts without a lease may be let go: their weights are freed, and read again from the
// checkpoint once a lease wants them. What comes back is bit for bit what went: a digest of the
// stored bytes is taken before they are let go and compared when they are read, and nothing is let
// go whose file is not the one that it was made from.
//
// Reading and letting go happen on one thread of its own, never on that of whoever wants them: a
// lease says whether its experts are there, and wait() is for those who may. Letting go takes a
// digest of everything that goes for the first time; it is done in slices, and between two of them
// whoever wants experts read goes first.
//
// Invariants: (1) an expert with a lease that is ready stays in memory; (2) a read that fails
// leaves everything as it was, and the next one tries again; (3) the memory of what comes back is
// taken from the account before it is read, and that of what goes is given back after it went.
//
// Thread safety: all of ExpertResidency and ExpertLease from any thread. It outlives its leases.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <deque>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <thread>
#include <utility>
#include <vector>

#include "base/status.h"
#include "base/threads/mutex.h"
#include "experts/residency/evictable_expert.h"

namespace chimera {

/// Where an expert of the checkpoint stands.
struct ExpertPlace {
  int64_t layer = 0;
  int64_t index = 0;  // among those of the layer
  auto operator<=>(const ExpertPlace&) const = default;
};

/// Where experts are read from. Thread safety: by one thread at a time.
class ExpertSource {
 public:
  virtual ~ExpertSource() = default;
  /// Digests of the bytes that the experts of these places are made from. failed_precondition when
  /// they are not those any more that they were made from.
  virtual Result<std::vector<std::string>> digests(std::span<const ExpertPlace> places) = 0;
  /// The experts, made as at first of bytes that have these digests; data_corrupt when they have
  /// others, or as reading a checkpoint fails.
  virtual Result<std::vector<std::shared_ptr<const Expert>>> read(
      std::span<const ExpertPlace> places, std::span<const std::string> digests) = 0;
};

class ExpertResidency;

/// The wish of somebody that experts be in memory, for as long as it lives.
class ExpertLease : public std::enable_shared_from_this<ExpertLease> {
 public:
  ~ExpertLease();
  ExpertLease(const ExpertLease&) = delete;
  ExpertLease& operator=(const ExpertLease&) = delete;

  /// All of them are there, and stay.
  bool ready() const { return state_.load(std::memory_order_acquire) == State::kReady; }
  /// Has those read that are missing, unless that is under way; again when it failed before.
  void begin();
  /// begin(), and waits: why they cannot be read.
  Status wait();
  /// Whether it is on the same experts.
  bool same(const ExpertLease& other) const { return experts_ == other.experts_; }
  /// How the last read ended when it failed; nothing while one is under way.
  std::optional<Status> failure() const;

 private:
  friend class ExpertResidency;
  enum class State : uint8_t { kIdle, kUnderWay, kReady, kFailed };
  ExpertLease(ExpertResidency* residency, std::vector<size_t> experts)
      : residency_(residency), experts_(std::move(experts)) {}

  ExpertResidency* const residency_;
  const std::vector<size_t> experts_;  // by the numbers of the residency
  std::atomic<State> state_{State::kIdle};
  Status failure_;  // by the residency's mutex
};

class ExpertResidency {
 public:
  struct Resident {
    ExpertPlace place;
    std::shared_ptr<EvictableExpert> expert;
  };
  /// Who is asked for memory before experts are read, and told of what went and of what goes wrong.
  /// Called on the thread of the residency.
  struct Account {
    std::function<Status(uint64_t bytes)> take = nullptr;
    std::function<void(uint64_t bytes)> give_back = nullptr;
    /// Why something stays that could go, or cannot be read.
    std::function<void(const Status&)> problem = nullptr;
  };
  /// What nobody uses any more stays for `linger`: another request like the last one may come.
  ExpertResidency(std::unique_ptr<ExpertSource> source, std::vector<Resident> experts,
                  std::chrono::milliseconds linger);
  ~ExpertResidency();
  ExpertResidency(const ExpertResidency&) = delete;
  ExpertResidency& operator=(const ExpertResidency&) = delete;

  /// Before anything is let go.
  void set_account(Account account) EXCLUDES(mutex_);
  /// On the experts of these places; ready when they are there. Unknown places do not count.
  std::shared_ptr<ExpertLease> lease(std::span<const ExpertPlace> places) EXCLUDES(mutex_);
  /// Lets go of what nobody uses without waiting longer: the composition changed. Experts that
  /// never had a lease go this way alone.
  void let_go_unused() EXCLUDES(mutex_);
  /// Returns once all that is to be read or let go by now is (for tests).
  void settle() EXCLUDES(mutex_);

  /// Of the experts at `places`, when they are in memory.
  uint64_t bytes_of(std::span<const ExpertPlace> places) const;
  /// Of all, likewise.
  uint64_t total_bytes() const;

 private:
  friend class ExpertLease;
  using Clock = std::chrono::steady_clock;
  struct Entry {
    Resident resident;
    uint32_t leases = 0;
    std::optional<Clock::time_point> due;  // to be let go, if nobody wants it by then
    std::string digest;                    // "": not known yet
  };

  void release(const ExpertLease& lease) EXCLUDES(mutex_);
  void begin(ExpertLease& lease) EXCLUDES(mutex_);
  Status wait(ExpertLease& lease) EXCLUDES(mutex_);
  std::optional<Status> failure(const ExpertLease& lease) const EXCLUDES(mutex_);

  // Of its thread.
  void run();
  void take_due(Clock::time_point now, Clock::time_point* next) REQUIRES(mutex_);
  /// The next of `going_` that may still go.
  std::vector<size_t> next_slice() EXCLUDES(mutex_);
  void restore(ExpertLease& lease) EXCLUDES(mutex_);
  Status read(std::span<const size_t> absent) EXCLUDES(mutex_);
  void let_go(const std::vector<size_t>& slice) EXCLUDES(mutex_);
  Status find_digests(std::span<const size_t> experts) EXCLUDES(mutex_);
  std::vector<ExpertPlace> places_of(std::span<const size_t> experts) const;

  const std::unique_ptr<ExpertSource> source_;
  const std::chrono::milliseconds linger_;
  std::map<ExpertPlace, size_t> by_place_;  // not changed once it is made

  mutable Mutex mutex_;
  CondVar wake_;                // its thread
  CondVar changed_;             // who waits
  std::vector<Entry> entries_;  // their places are constant, the rest is guarded
  Account account_ GUARDED_BY(mutex_);
  std::vector<std::weak_ptr<ExpertLease>> wanted_ GUARDED_BY(mutex_);
  bool woken_ GUARDED_BY(mutex_) = false;
  bool busy_ GUARDED_BY(mutex_) = false;
  std::deque<size_t> going_;  // due, and not looked at yet; its thread's
  bool untrimmed_ = false;    // some went since the heap was trimmed; its thread's
  bool stopping_ GUARDED_BY(mutex_) = false;
  std::thread thread_;
};

}  // namespace chimera
