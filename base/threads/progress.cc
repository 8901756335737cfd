#include "base/threads/progress.h"

#include <chrono>

namespace chimera {
namespace {

constexpr std::chrono::nanoseconds kStep{100'000'000};
thread_local Progress* current = nullptr;

}  // namespace

void Progress::add(uint64_t bytes) {
  done_ += bytes;
  if (!on_step_) return;
  const int64_t now = std::chrono::steady_clock::now().time_since_epoch().count();
  int64_t next = next_step_ns_;
  if (now < next || !next_step_ns_.compare_exchange_strong(next, now + kStep.count())) return;
  on_step_();
}

ProgressScope::ProgressScope(Progress* progress) : before_(current) { current = progress; }
ProgressScope::~ProgressScope() { current = before_; }

Progress* current_progress() { return current; }

void note_progress(uint64_t bytes) {
  if (current != nullptr) current->add(bytes);
}

bool work_given_up() { return current != nullptr && current->given_up(); }

}  // namespace chimera
