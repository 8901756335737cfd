#include "experts/residency/expert_residency.h"

#include <malloc.h>

#include <algorithm>
#include <utility>

namespace chimera {
namespace {

/// Of weights that are let go before whoever wants experts is looked at again: their digest takes
/// about a tenth of a second on one core without SHA instructions, and opening the checkpoint for
/// a slice, some milliseconds where it has many files, stays a small part of that.
constexpr uint64_t kSliceBytes = 32u << 20;

}  // namespace

ExpertLease::~ExpertLease() { residency_->release(*this); }
void ExpertLease::begin() { residency_->begin(*this); }
Status ExpertLease::wait() { return residency_->wait(*this); }
std::optional<Status> ExpertLease::failure() const { return residency_->failure(*this); }

ExpertResidency::ExpertResidency(std::unique_ptr<ExpertSource> source,
                                 std::vector<Resident> experts, std::chrono::milliseconds linger)
    : source_(std::move(source)), linger_(linger) {
  for (Resident& one : experts) {
    by_place_.emplace(one.place, entries_.size());
    entries_.push_back({std::move(one), 0, {}, {}});
  }
  thread_ = std::thread([this] { run(); });
}

ExpertResidency::~ExpertResidency() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
    woken_ = true;
    wake_.notify_all();
    changed_.notify_all();
  }
  thread_.join();
}

void ExpertResidency::set_account(Account account) {
  const MutexLock lock(mutex_);
  account_ = std::move(account);
}

std::shared_ptr<ExpertLease> ExpertResidency::lease(std::span<const ExpertPlace> places) {
  std::vector<size_t> experts;
  for (const ExpertPlace& place : places) {
    const auto found = by_place_.find(place);
    if (found != by_place_.end()) experts.push_back(found->second);
  }
  const std::shared_ptr<ExpertLease> made(new ExpertLease(this, std::move(experts)));
  const MutexLock lock(mutex_);
  bool all = true;
  for (const size_t i : made->experts_) {
    ++entries_[i].leases;
    all = all && entries_[i].resident.expert->resident();
  }
  if (all) made->state_.store(ExpertLease::State::kReady, std::memory_order_release);
  return made;
}

void ExpertResidency::release(const ExpertLease& lease) {
  const MutexLock lock(mutex_);
  bool any = false;
  for (const size_t i : lease.experts_) {
    Entry& entry = entries_[i];
    if (--entry.leases > 0 || !entry.resident.expert->resident()) continue;
    entry.due = Clock::now() + linger_;
    any = true;
  }
  if (!any) return;
  woken_ = true;
  wake_.notify_all();
}

void ExpertResidency::begin(ExpertLease& lease) {
  const MutexLock lock(mutex_);
  const ExpertLease::State state = lease.state_.load(std::memory_order_relaxed);
  if (state == ExpertLease::State::kReady || state == ExpertLease::State::kUnderWay) return;
  lease.state_.store(ExpertLease::State::kUnderWay, std::memory_order_relaxed);
  wanted_.push_back(lease.weak_from_this());
  woken_ = true;
  wake_.notify_all();
}

Status ExpertResidency::wait(ExpertLease& lease) {
  begin(lease);
  const MutexLock lock(mutex_);
  const auto state = [&] { return lease.state_.load(std::memory_order_relaxed); };
  changed_.wait(mutex_, [&]() REQUIRES(mutex_) {
    return stopping_ || state() != ExpertLease::State::kUnderWay;
  });
  if (state() == ExpertLease::State::kReady) return {};
  if (state() == ExpertLease::State::kFailed) return lease.failure_;
  return {Code::kUnavailable, "the daemon is stopping"};
}

std::optional<Status> ExpertResidency::failure(const ExpertLease& lease) const {
  const MutexLock lock(mutex_);
  const bool failed = lease.state_.load(std::memory_order_relaxed) == ExpertLease::State::kFailed;
  return failed ? std::optional(lease.failure_) : std::nullopt;
}

void ExpertResidency::let_go_unused() {
  const MutexLock lock(mutex_);
  const Clock::time_point now = Clock::now();
  for (Entry& entry : entries_) {
    if (entry.leases == 0 && entry.resident.expert->resident()) entry.due = now;
  }
  woken_ = true;
  wake_.notify_all();
}

void ExpertResidency::settle() {
  const MutexLock lock(mutex_);
  changed_.wait(mutex_, [this]() REQUIRES(mutex_) {
    const Clock::time_point now = Clock::now();
    const bool due = std::any_of(entries_.begin(), entries_.end(),
                                 [&](const Entry& e) { return e.due && *e.due <= now; });
    return stopping_ || (!busy_ && !woken_ && wanted_.empty() && !due);
  });
}

uint64_t ExpertResidency::bytes_of(std::span<const ExpertPlace> places) const {
  uint64_t bytes = 0;
  for (const ExpertPlace& place : places) {
    const auto found = by_place_.find(place);
    if (found != by_place_.end()) bytes += entries_[found->second].resident.expert->bytes();
  }
  return bytes;
}

uint64_t ExpertResidency::total_bytes() const {
  uint64_t bytes = 0;
  for (const Entry& entry : entries_) bytes += entry.resident.expert->bytes();
  return bytes;
}

std::vector<ExpertPlace> ExpertResidency::places_of(std::span<const size_t> experts) const {
  std::vector<ExpertPlace> places;
  for (const size_t i : experts) places.push_back(entries_[i].resident.place);
  return places;
}

void ExpertResidency::run() {
  for (;;) {
    std::vector<std::weak_ptr<ExpertLease>> wanted;
    {
      const MutexLock lock(mutex_);
      busy_ = !going_.empty();
      changed_.notify_all();
      for (;;) {
        if (stopping_) return;
        woken_ = false;
        const Clock::time_point now = Clock::now();
        Clock::time_point next = now + std::chrono::hours(1);
        wanted.swap(wanted_);
        take_due(now, &next);
        if (!wanted.empty() || !going_.empty()) break;
        changed_.notify_all();
        wake_.wait_for(mutex_, next - now, [this]() REQUIRES(mutex_) { return woken_; });
      }
      busy_ = true;
    }
    for (const std::weak_ptr<ExpertLease>& one : wanted) {
      if (const auto lease = one.lock()) restore(*lease);
    }
    if (!going_.empty()) let_go(next_slice());
  }
}

/// Adds those to be let go by `now`; `next`: when it is the next one's turn, if that comes before.
void ExpertResidency::take_due(Clock::time_point now, Clock::time_point* next) {
  for (size_t i = 0; i < entries_.size(); ++i) {
    Entry& entry = entries_[i];
    if (entry.leases > 0) entry.due.reset();
    if (!entry.due) continue;
    if (*entry.due > now) {
      *next = std::min(*next, *entry.due);
      continue;
    }
    entry.due.reset();
    going_.push_back(i);
  }
}

std::vector<size_t> ExpertResidency::next_slice() {
  std::vector<size_t> slice;
  const MutexLock lock(mutex_);
  for (uint64_t bytes = 0; !going_.empty() && bytes < kSliceBytes; going_.pop_front()) {
    const Entry& entry = entries_[going_.front()];
    // Somebody may have come meanwhile; and where he has left again, its time begins anew.
    if (entry.leases > 0 || entry.due || !entry.resident.expert->resident()) continue;
    slice.push_back(going_.front());
    bytes += entry.resident.expert->bytes();
  }
  return slice;
}

void ExpertResidency::restore(ExpertLease& lease) {
  std::vector<size_t> absent;
  {
    const MutexLock lock(mutex_);
    for (const size_t i : lease.experts_) {
      if (!entries_[i].resident.expert->resident()) absent.push_back(i);
    }
  }
  Status status = absent.empty() ? Status() : read(absent);
  std::function<void(const Status&)> problem;
  {
    const MutexLock lock(mutex_);
    problem = account_.problem;
  }
  if (!status.ok() && problem) problem(status);
  const MutexLock lock(mutex_);
  const bool ok = status.ok();
  lease.failure_ = std::move(status);
  lease.state_.store(ok ? ExpertLease::State::kReady : ExpertLease::State::kFailed,
                     std::memory_order_release);
  changed_.notify_all();
}

Status ExpertResidency::read(std::span<const size_t> absent) {
  Account account;
  std::vector<std::string> digests;
  uint64_t bytes = 0;
  {
    const MutexLock lock(mutex_);
    account = account_;
    for (const size_t i : absent) {
      digests.push_back(entries_[i].digest);
      bytes += entries_[i].resident.expert->bytes();
    }
  }
  if (account.take) CHIMERA_RETURN_IF_ERROR(account.take(bytes));
  auto experts = source_->read(places_of(absent), digests);
  if (!experts.ok()) {
    if (account.give_back) account.give_back(bytes);
    return experts.status();
  }
  const MutexLock lock(mutex_);
  for (size_t n = 0; n < absent.size(); ++n)
    (void)entries_[absent[n]].resident.expert->exchange(std::move((*experts)[n]));
  return {};
}

Status ExpertResidency::find_digests(std::span<const size_t> experts) {
  std::vector<size_t> unknown;
  {
    const MutexLock lock(mutex_);
    for (const size_t i : experts) {
      if (entries_[i].digest.empty()) unknown.push_back(i);
    }
  }
  if (unknown.empty()) return {};
  auto found = source_->digests(places_of(unknown));
  if (!found.ok()) return found.status();
  const MutexLock lock(mutex_);
  for (size_t n = 0; n < unknown.size(); ++n) entries_[unknown[n]].digest = std::move((*found)[n]);
  return {};
}

void ExpertResidency::let_go(const std::vector<size_t>& slice) {
  const Status known = find_digests(slice);
  Account account;
  std::vector<std::shared_ptr<const Expert>> gone;
  uint64_t bytes = 0;
  {
    const MutexLock lock(mutex_);
    account = account_;
    for (const size_t i : slice) {
      Entry& entry = entries_[i];
      // Somebody may have come meanwhile.
      if (entry.leases > 0 || entry.digest.empty() || !entry.resident.expert->resident()) continue;
      gone.push_back(entry.resident.expert->exchange(nullptr));
      bytes += entry.resident.expert->bytes();
    }
  }
  if (!known.ok()) {
    // Said once: the others lie where these do. What was away before may go all the same.
    std::erase_if(going_, [this](size_t i) { return entries_[i].digest.empty(); });
    if (account.problem) account.problem(known);
  }
  untrimmed_ = untrimmed_ || !gone.empty();
  gone.clear();
  // What was small came from the heap; all of it is walked, and other threads wait for that: once.
  if (going_.empty() && std::exchange(untrimmed_, false)) (void)malloc_trim(0);
  if (bytes > 0 && account.give_back) account.give_back(bytes);
}

}  // namespace chimera
