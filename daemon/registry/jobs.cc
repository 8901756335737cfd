#include "daemon/registry/jobs.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace chimera {
namespace {

using Seconds = std::chrono::duration<double>;

// A share of the work below which its speed says nothing yet.
constexpr double kEnoughToTell = 0.02;

}  // namespace

Job::Job(uint64_t turn, std::string call, std::vector<std::string> modules,
         std::function<Status()> still_wanted, std::function<void(const JobStatus&)> on_progress)
    : turn_(turn),
      id_(fmt::format("job-{}", turn)),
      call_(std::move(call)),
      modules_(std::move(modules)),
      still_wanted_(std::move(still_wanted)),
      on_progress_(std::move(on_progress)),
      progress_([this] { tell(); }) {}

void Job::tell() const {
  if (on_progress_) on_progress_(status());
}

bool Job::cancel() {
  if (phase_ > JobPhase::kPublishing) return false;
  progress_.give_up();
  return true;
}

Status Job::still_wanted() const {
  if (still_wanted_) CHIMERA_RETURN_IF_ERROR(still_wanted_());
  if (!progress_.given_up()) return {};
  return {Code::kCancelled, id_ + ": was cancelled", "Ask for it again, if it is still wanted"};
}

void Job::enter(JobPhase phase) {
  {
    const MutexLock lock(mutex_);
    if (phase == JobPhase::kReading && began_ == Clock::time_point()) began_ = Clock::now();
  }
  phase_ = phase;
  if (phase <= JobPhase::kPublishing) tell();
}

void Job::begin(std::shared_ptr<const Manifest> manifest) {
  const MutexLock lock(mutex_);
  loading_.push_back(std::move(manifest));
}

void Job::end(const Manifest* manifest) {
  const MutexLock lock(mutex_);
  std::erase_if(loading_, [&](const auto& one) { return one.get() == manifest; });
}

std::vector<std::shared_ptr<const Manifest>> Job::loading() const {
  const MutexLock lock(mutex_);
  return loading_;
}

JobStatus Job::status() const {
  JobStatus out;
  out.id = id_;
  out.call = call_;
  out.modules = modules_;
  out.phase = phase_;
  // Read once and hashed once.
  out.bytes_total = progress_.total() / 2;
  out.bytes = std::min(progress_.done() / 2, out.bytes_total);
  out.seconds = Seconds(Clock::now() - asked_).count();
  if (out.phase != JobPhase::kReading || out.bytes_total == 0) return out;
  const double share = static_cast<double>(out.bytes) / static_cast<double>(out.bytes_total);
  const MutexLock lock(mutex_);
  if (share < kEnoughToTell) return out;
  out.seconds_left = Seconds(Clock::now() - began_).count() * (1.0 - share) / share;
  return out;
}

void Jobs::add(const std::shared_ptr<Job>& job) {
  const MutexLock lock(mutex_);
  running_.push_back(job);
}

void Jobs::end(const std::shared_ptr<Job>& job, const Status& outcome, uint64_t epoch) {
  job->enter(outcome.ok()                         ? JobPhase::kDone
             : outcome.code() == Code::kCancelled ? JobPhase::kCancelled
                                                  : JobPhase::kFailed);
  JobStatus status = job->status();
  status.outcome = outcome;
  status.epoch = epoch;
  const MutexLock lock(mutex_);
  running_.remove(job);
  ended_.push_back(std::move(status));
  if (ended_.size() > kRemembered) ended_.pop_front();
}

std::shared_ptr<Job> Jobs::find(const std::string& id) const {
  const MutexLock lock(mutex_);
  const auto found = std::find_if(running_.begin(), running_.end(),
                                  [&](const auto& job) { return job->id() == id; });
  return found == running_.end() ? nullptr : *found;
}

void Jobs::give_up_unwanted() const {
  for (const auto& job : running()) job->give_up_unwanted();
}

std::vector<std::shared_ptr<Job>> Jobs::running() const {
  const MutexLock lock(mutex_);
  return {running_.begin(), running_.end()};
}

std::vector<JobStatus> Jobs::list() const {
  const MutexLock lock(mutex_);
  std::vector<JobStatus> out(ended_.begin(), ended_.end());
  for (const auto& job : running_) out.push_back(job->status());
  return out;
}

}  // namespace chimera
