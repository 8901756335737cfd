#include "router/averages.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace chimera {
namespace {

Result<std::shared_ptr<const Backbone>> average_of(Averages::Modules modules) {
  std::vector<const Bundle*> bundles;
  for (const auto& module : modules) bundles.push_back(module->bundle.get());
  return averaged_backbone(bundles);
}

/// By owner: an address may be that of another module by now.
bool same_module(const std::weak_ptr<const Module>& a, const std::weak_ptr<const Module>& b) {
  return !a.owner_before(b) && !b.owner_before(a);
}

}  // namespace

Average::~Average() {
  // Nobody else has it; what makes it has a share in the progress alone.
  if (making_ != nullptr) making_->give_up();
}

void Average::begin(AverageFor whom) { averages_->begin(*this, whom); }
Status Average::wait(AverageFor whom) { return averages_->wait(*this, whom); }
std::optional<Status> Average::failure() const { return averages_->failure(*this); }

Averages::Averages(Make make) : make_(make ? std::move(make) : Make(average_of)) {}

std::shared_ptr<Average> Averages::find(Modules bundles) const {
  const Average::Bundles wanted(bundles.begin(), bundles.end());
  for (const auto& known : known_) {
    auto average = known.lock();
    if (average != nullptr && std::equal(wanted.begin(), wanted.end(), average->bundles_.begin(),
                                         average->bundles_.end(), same_module)) {
      return average;
    }
  }
  return nullptr;
}

std::shared_ptr<Average> Averages::of(Modules bundles) {
  const MutexLock lock(mutex_);
  std::erase_if(known_, [](const auto& known) { return known.expired(); });
  if (auto average = find(bundles)) {
    if (average->ready()) touch(average);
    return average;
  }
  std::shared_ptr<Average> average(
      new Average(this, Average::Bundles(bundles.begin(), bundles.end())));
  known_.push_back(average);
  return average;
}

bool Averages::has(Modules bundles) const {
  std::shared_ptr<Average> average;  // destroyed without the mutex
  const MutexLock lock(mutex_);
  average = find(bundles);
  return average != nullptr && average->ready();
}

void Averages::touch(const std::shared_ptr<Average>& average) {
  const bool stays = std::all_of(
      average->bundles_.begin(), average->bundles_.end(),
      [this](const auto& bundle) REQUIRES(mutex_) {
        return std::any_of(current_.begin(), current_.end(),
                           [&](const auto& module) { return same_module(bundle, module); });
      });
  if (!stays) return;
  kept_.remove(average);
  kept_.push_front(average);
}

void Averages::set_current(Modules modules) {
  std::list<std::shared_ptr<Average>> gone;  // destroyed without the mutex
  const MutexLock lock(mutex_);
  current_.assign(modules.begin(), modules.end());
  gone = std::exchange(kept_, {});
}

bool Averages::idle(const std::shared_ptr<Average>& kept) {
  // Whoever else has it got it from here, under the mutex, or from somebody who has it.
  return kept.use_count() == 1 && kept->ready();
}

std::shared_ptr<Average> Averages::take_idle() {
  for (auto at = kept_.end(); at != kept_.begin();) {
    --at;
    if (!idle(*at)) continue;
    std::shared_ptr<Average> idle = std::move(*at);
    kept_.erase(at);
    return idle;
  }
  return nullptr;
}

bool Averages::let_go_one() {
  std::shared_ptr<Average> gone;
  const MutexLock lock(mutex_);
  gone = take_idle();
  return gone != nullptr;
}

uint64_t Averages::idle_bytes(const Backbone& base) const {
  const MutexLock lock(mutex_);
  uint64_t bytes = 0;
  for (const auto& kept : kept_) {
    if (idle(kept)) bytes += kept->backbone_->bytes_beside(base);
  }
  return bytes;
}

Status Averages::make_room(bool of_composition, std::shared_ptr<Average>* gone) {
  size_t all = 0, of_requests = 0;
  for (const auto& known : known_) {
    const auto average = known.lock();
    if (average == nullptr) continue;
    const Average::State state = average->state_;
    if (state != Average::State::kUnderWay && state != Average::State::kReady) continue;
    ++all;
    if (!average->of_composition_) ++of_requests;
  }
  for (const auto& kept : kept_) {
    if (idle(kept) && !kept->of_composition_) --of_requests;
  }
  if (!of_composition && of_requests >= kMost) {
    return {Code::kResourceExhausted,
            fmt::format("found {} averages in use (expected at most so many)", kMost),
            "Try again when requests that use other bundles have ended."};
  }
  if (all >= kMost) *gone = take_idle();
  return {};
}

void Averages::begin(Average& average, AverageFor whom) {
  std::shared_ptr<Average> gone;
  std::shared_ptr<Progress> progress;
  WorkerPool* worker = nullptr;
  {
    const MutexLock lock(mutex_);
    if (whom == AverageFor::kComposition) average.of_composition_ = true;
    const Average::State state = average.state_;
    if (state == Average::State::kUnderWay || state == Average::State::kReady) return;
    if (Status room = make_room(average.of_composition_, &gone); !room.ok())
      return end(average, std::move(room));
    if (!worker_) worker_.emplace();
    worker = &*worker_;
    average.making_ = progress = std::make_shared<Progress>();
    touch(average.shared_from_this());
    average.state_ = Average::State::kUnderWay;
  }
  worker->post(
      // What gives way goes there, too: first, as the new one may need its memory, and not here,
      // where streams may wait for it.
      [this, bundles = average.bundles_, progress, gone = std::move(gone)]() mutable -> Made {
        gone.reset();
        if (progress->given_up()) return Status(Code::kCancelled, "nobody wants it any more");
        const ProgressScope scope(progress.get());
        return make(bundles);
      },
      [this, wanted = average.weak_from_this()](Made made) {
        // Let go of under the mutex: who was waiting finds nobody else on it.
        const MutexLock lock(mutex_);
        const std::shared_ptr<Average> waits = wanted.lock();
        if (waits != nullptr) end(*waits, std::move(made));
      });
}

void Averages::end(Average& average, Made made) {
  average.making_ = nullptr;
  if (made.ok()) {
    average.backbone_ = std::move(*made);
    average.state_.store(Average::State::kReady, std::memory_order_release);
    touch(average.shared_from_this());
  } else {
    average.failure_ = made.status().with_context("the average of the bundles");
    average.state_ = Average::State::kFailed;
    kept_.remove(average.shared_from_this());
  }
  ended_.notify_all();
}

void Averages::stop() {
  WorkerPool* worker = nullptr;
  {
    const MutexLock lock(mutex_);
    for (const auto& known : known_) {
      const auto average = known.lock();
      if (average != nullptr && average->making_ != nullptr) average->making_->give_up();
    }
    if (!worker_) worker_.emplace(/*threads=*/0);  // that answers whoever comes after this
    worker = &*worker_;
  }
  worker->stop();
}

Averages::Made Averages::make(const Average::Bundles& bundles) const {
  std::vector<std::shared_ptr<const Module>> held;
  for (const auto& bundle : bundles) {
    held.push_back(bundle.lock());
    if (held.back() == nullptr)
      return Status(Code::kUnavailable, "found one of the bundles gone (expected all of them)");
  }
  return make_(held);
}

Status Averages::wait(Average& average, AverageFor whom) {
  begin(average, whom);
  const MutexLock lock(mutex_);
  ended_.wait(mutex_, [&] { return average.state_ != Average::State::kUnderWay; });
  return average.state_ == Average::State::kReady ? Status() : average.failure_;
}

std::optional<Status> Averages::failure(const Average& average) const {
  const MutexLock lock(mutex_);
  if (average.state_ != Average::State::kFailed) return std::nullopt;
  return average.failure_;
}

}  // namespace chimera
