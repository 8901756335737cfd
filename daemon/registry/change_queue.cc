#include "daemon/registry/change_queue.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

namespace chimera {
namespace {

// Names of which it is remembered when they were revoked. What is forgotten was revoked before a
// thousand others, and only a load that waited for as long could still come in.
constexpr size_t kRevocations = 1024;

bool about_the_same(const Change& a, const Change& b) {
  if (a.any || b.any) return true;
  return std::any_of(a.names.begin(), a.names.end(), [&](const std::string& name) {
    return std::find(b.names.begin(), b.names.end(), name) != b.names.end();
  });
}

}  // namespace

ChangeQueue::ChangeQueue(std::function<bool(const std::string& name)> is_loaded)
    : is_loaded_(std::move(is_loaded)) {}

bool ChangeQueue::waits(const Change& later, const Entry& before) const {
  using Kind = Change::Kind;
  const Change& earlier = *before.change;
  switch (later.kind) {
    case Kind::kComposition:
      return true;
    case Kind::kLoad:
      return earlier.kind == Kind::kComposition || about_the_same(later, earlier);
    case Kind::kRemove:
      return about_the_same(later, earlier);
    case Kind::kEdit:
      break;
  }
  if (!about_the_same(later, earlier)) return false;
  if (earlier.kind == Kind::kEdit) return !before.started;
  const auto loaded = [&](const std::string& name) { return is_loaded_(name); };
  return !earlier.loads() || !std::all_of(later.names.begin(), later.names.end(), loaded);
}

ChangeQueue::Entry* ChangeQueue::startable() {
  for (auto entry = entries_.begin(); entry != entries_.end(); ++entry) {
    if (!entry->start) continue;
    const bool must_wait = std::any_of(entries_.begin(), entry, [&](const Entry& earlier) {
      return waits(*entry->change, earlier);
    });
    if (!must_wait) return &*entry;
  }
  return nullptr;
}

void ChangeQueue::start_all() {
  for (;;) {
    std::function<void()> start;
    std::shared_ptr<const Change> change;
    {
      const MutexLock lock(mutex_);
      Entry* next = startable();
      if (next == nullptr) return;
      start = std::exchange(next->start, nullptr);
      change = next->change;
    }
    start();
    const MutexLock lock(mutex_);
    for (Entry& entry : entries_) entry.started = entry.started || entry.change == change;
  }
}

Status ChangeQueue::add(std::shared_ptr<const Change> change, std::function<void()> start) {
  {
    const MutexLock lock(mutex_);
    if (entries_.size() >= kMaxWaiting) {
      return {Code::kResourceExhausted,
              fmt::format("found {} changes waiting (expected fewer)", entries_.size()),
              "Try again when they are done"};
    }
    entries_.push_back({std::move(change), std::move(start), false, {}});
  }
  start_all();
  return {};
}

void ChangeQueue::start_now(uint64_t turn) {
  std::function<void()> start;
  {
    const MutexLock lock(mutex_);
    for (Entry& entry : entries_) {
      if (entry.change->turn == turn) start = std::exchange(entry.start, nullptr);
    }
  }
  if (start) start();
}

void ChangeQueue::end(const std::shared_ptr<const Change>& change) {
  {
    const MutexLock lock(mutex_);
    entries_.remove_if([&](const Entry& entry) { return entry.change == change; });
  }
  start_all();
}

bool ChangeQueue::loading(const std::string& name, uint64_t turn) const {
  const MutexLock lock(mutex_);
  return std::any_of(entries_.begin(), entries_.end(), [&](const Entry& entry) {
    const auto& names = entry.change->names;
    return entry.change->loads() && entry.change->turn < turn &&
           std::find(names.begin(), names.end(), name) != names.end();
  });
}

void ChangeQueue::note_edit(uint64_t turn, const std::string& name, const ModuleEdit& edit) {
  const MutexLock lock(mutex_);
  for (Entry& entry : entries_) {
    if (!entry.change->loads() || entry.change->turn > turn) continue;
    ModuleEdit& noted = entry.edits[name];
    if (edit.enabled) noted.enabled = edit.enabled;
    if (edit.bias) noted.bias = edit.bias;
  }
}

std::map<std::string, ModuleEdit> ChangeQueue::edits_since(
    const std::shared_ptr<const Change>& change) const {
  const MutexLock lock(mutex_);
  for (const Entry& entry : entries_) {
    if (entry.change == change) return entry.edits;
  }
  return {};
}

void ChangeQueue::note_revocation(uint64_t turn, const std::string& name) {
  const MutexLock lock(mutex_);
  uint64_t& noted = revocations_[name];
  noted = std::max(noted, turn);
  if (revocations_.size() <= kRevocations) return;
  revocations_.erase(
      std::min_element(revocations_.begin(), revocations_.end(),
                       [](const auto& a, const auto& b) { return a.second < b.second; }));
}

bool ChangeQueue::revoked_since(uint64_t turn, const std::string& name) const {
  const MutexLock lock(mutex_);
  const auto noted = revocations_.find(name);
  return noted != revocations_.end() && noted->second > turn;
}

}  // namespace chimera
