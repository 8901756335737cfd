#include "daemon/engine/statistics.h"

#include <algorithm>
#include <utility>

namespace chimera {
namespace {

constexpr std::chrono::milliseconds kRoutingInterval{100};

}  // namespace

double percentile(std::vector<float> values, double fraction) {
  if (values.empty()) return 0.0;
  const auto at =
      values.begin() + static_cast<ptrdiff_t>(fraction * static_cast<double>(values.size() - 1));
  std::nth_element(values.begin(), at, values.end());
  return *at;
}

Statistics::Statistics() { step_ms_.reserve(kStepWindow); }

void Statistics::record_step(double ms) {
  recorded_.push_back(static_cast<float>(ms));
  counters_.latencies.step.observe(std::chrono::duration<double, std::milli>(ms));
}

void Statistics::keep_modules(const std::set<std::string>& in_use) {
  const MutexLock lock(mutex_);
  router_.move_into(shown_router_);
  gone_.remove_if([&](const std::string& name) { return in_use.contains(name); });
  std::set<std::string> left;
  for (const RouterStats::Layer& layer : shown_router_.layers) {
    for (const auto& [name, mass] : layer.mass) {
      if (!in_use.contains(name)) left.insert(name);
    }
  }
  for (const auto& [name, pass] : shown_router_.last_pass) {
    if (!in_use.contains(name)) left.insert(name);
  }
  for (const std::string& name : gone_) left.erase(name);
  gone_.insert(gone_.end(), left.begin(), left.end());
  for (; gone_.size() > kGoneModules; gone_.pop_front()) {
    router_.forget_module(gone_.front());
    shown_router_.forget_module(gone_.front());
  }
}

void Statistics::show(Routing routing) {
  const auto now = std::chrono::steady_clock::now();
  const bool due = routing == Routing::kNow || now - routing_shown_ >= kRoutingInterval;
  const MutexLock lock(mutex_);
  shown_ = counters_;
  if (due) {
    router_.move_into(shown_router_);
    routing_shown_ = now;
  }
  for (const float ms : recorded_) {
    if (step_ms_.size() < kStepWindow) {
      step_ms_.push_back(ms);
    } else {
      step_ms_[next_step_++ % kStepWindow] = ms;
    }
  }
  recorded_.clear();
}

CanaryCounts Statistics::read_canary() const {
  const MutexLock lock(mutex_);
  return shown_.canary;
}

EngineStats Statistics::read() const {
  EngineStats stats;
  std::vector<float> steps;
  {
    const MutexLock lock(mutex_);
    stats = shown_;
    stats.router = shown_router_;
    steps = step_ms_;
  }
  stats.step_ms_p50 = percentile(steps, 0.50);
  stats.step_ms_p99 = percentile(std::move(steps), 0.99);
  return stats;
}

}  // namespace chimera
