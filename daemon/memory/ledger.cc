#include "daemon/memory/ledger.h"

#include <fmt/format.h>

#include <algorithm>
#include <limits>
#include <map>
#include <utility>

#include "base/bytes.h"
#include "base/threads/mutex.h"

namespace chimera {

uint64_t memory_reserve(uint64_t limit) {
  constexpr uint64_t kLeast = 48ull << 20;
  constexpr uint64_t kMost = 2ull << 30;
  // Never more than half: a tiny limit still leaves something to refuse by.
  return std::min(std::clamp(limit / 16, kLeast, kMost), limit / 2);
}

MemoryBudget memory_budget(std::optional<uint64_t> stated, const MemoryLimit& limit) {
  if (stated) return {*stated, limit.bytes, 0, "memory.budget"};
  // Of address space threads take their stacks whole, 8 MiB each: a dozen and one for each CPU.
  // What the account holds is reserved, too, but touched; of stacks a few pages are.
  constexpr uint64_t kStacks = 96ull << 20;
  uint64_t reserve = memory_reserve(limit.bytes);
  if (limit.source == kAddressSpace) reserve = std::min(reserve + kStacks, limit.bytes / 2);
  return {limit.bytes - reserve, limit.bytes, reserve, limit.source};
}

struct Ledger::Book {
  explicit Book(MemoryBudget b) : budget(std::move(b)) {}

  uint64_t used() const REQUIRES(mutex) {
    uint64_t sum = 0;
    for (const auto& [id, entry] : entries) sum += entry.bytes;
    return sum;
  }
  Account account() const REQUIRES(mutex) {
    Account out{budget, used(), {}};
    for (const auto& [id, entry] : entries) out.entries.push_back(entry);
    return out;
  }
  Status check(uint64_t bytes, const std::string& what) const REQUIRES(mutex);
  /// By how much `bytes` do not fit.
  uint64_t missing(uint64_t bytes) const REQUIRES(mutex) {
    const uint64_t held = used();
    if (held <= budget.bytes) return bytes - std::min(bytes, budget.bytes - held);
    const uint64_t over = held - budget.bytes;
    return over + std::min(bytes, std::numeric_limits<uint64_t>::max() - over);
  }
  /// check(), once what nobody uses has gone if it must, and `then` under the same lock.
  template <class Then>
  Status fit(uint64_t bytes, const std::string& what, const Then& then) EXCLUDES(mutex) {
    for (;;) {
      Idle ask;
      uint64_t lacks = 0;
      {
        const MutexLock lock(mutex);
        Status status = check(bytes, what);
        if (status.ok()) then();
        if (status.ok() || idle.let_go == nullptr) return status;
        ask = idle;
        lacks = missing(bytes);
      }
      if (ask.bytes() >= lacks && ask.let_go()) continue;
      const MutexLock lock(mutex);
      Status status = check(bytes, what);  // another thread may have let go of the last
      if (status.ok()) then();
      return status;
    }
  }

  const MemoryBudget budget;
  mutable Mutex mutex;
  uint64_t next_id GUARDED_BY(mutex) = 1;
  std::map<uint64_t, Entry> entries GUARDED_BY(mutex);
  Idle idle GUARDED_BY(mutex);
};

namespace {

/// Modules, the largest first, until `missing` bytes would be free; or that they are not enough.
std::string what_would_have_to_go(std::vector<Ledger::Entry> entries, uint64_t missing) {
  std::erase_if(entries, [](const Ledger::Entry& e) { return e.use != MemoryUse::kModule; });
  std::stable_sort(entries.begin(), entries.end(),
                   [](const auto& x, const auto& y) { return x.bytes > y.bytes; });
  std::string names;
  uint64_t sum = 0;
  for (const Ledger::Entry& entry : entries) {
    if (sum >= missing) break;
    names +=
        fmt::format("{}{} ({})", names.empty() ? "" : ", ", entry.name, bytes_text(entry.bytes));
    sum += entry.bytes;
  }
  if (sum < missing) return "raise memory.budget, or lower memory.kv: no modules are large enough";
  return fmt::format("unload {}, or let the streams end that still use it; or raise memory.budget",
                     names);
}

}  // namespace

std::string describe(const Ledger::Account& account) {
  std::string text = bytes_text(account.used);
  const char* separator = ": ";
  for (const Ledger::Entry& entry : account.entries) {
    text += fmt::format("{}{}{}{} {}", separator, kMemoryUseNames.name(entry.use),
                        entry.name.empty() ? "" : " ", entry.name, bytes_text(entry.bytes));
    separator = ", ";
  }
  return text;
}

Status Ledger::Book::check(uint64_t bytes, const std::string& what) const {
  if (budget.bytes == 0) return {};
  const Account is = account();
  if (bytes <= is.free()) return {};
  return {
      Code::kResourceExhausted,
      fmt::format("{}: needs {} of memory, and {} of the budget of {} are free (held: {})", what,
                  bytes_text(bytes), bytes_text(is.free()), bytes_text(budget.bytes), describe(is)),
      what_would_have_to_go(is.entries, bytes - is.free())};
}

Ledger::Ledger(MemoryBudget budget) : book_(std::make_shared<Book>(std::move(budget))) {}

Result<Ledger::Place> Ledger::take(MemoryUse use, const std::string& name, uint64_t bytes,
                                   const std::string& what) {
  uint64_t id = 0;
  CHIMERA_RETURN_IF_ERROR(book_->fit(bytes, what, [&]() REQUIRES(book_->mutex) {
    id = book_->next_id++;
    book_->entries.emplace(id, Entry{use, name, bytes, 0});
  }));
  return Place(book_, id);
}

void Ledger::set_idle(Idle idle) {
  const MutexLock lock(book_->mutex);
  book_->idle = std::move(idle);
}

Status Ledger::check(uint64_t bytes, const std::string& what) const {
  return book_->fit(bytes, what, [] {});
}

Ledger::Account Ledger::account() const {
  const MutexLock lock(book_->mutex);
  return book_->account();
}

Ledger::Place& Ledger::Place::operator=(Place&& other) noexcept {
  Place old = std::move(*this);
  book_ = std::move(other.book_);
  id_ = other.id_;
  return *this;
}

Ledger::Place::~Place() {
  if (book_ == nullptr) return;
  const MutexLock lock(book_->mutex);
  book_->entries.erase(id_);
}

void Ledger::Place::correct(uint64_t bytes) {
  if (book_ == nullptr) return;
  const MutexLock lock(book_->mutex);
  book_->entries.at(id_).bytes = bytes;
}

void Ledger::Place::evict(uint64_t bytes) {
  if (book_ == nullptr) return;
  const MutexLock lock(book_->mutex);
  Entry& entry = book_->entries.at(id_);
  const uint64_t gone = std::min(bytes, entry.bytes);
  entry.bytes -= gone;
  entry.evicted += gone;
}

Status Ledger::Place::grow_back(uint64_t bytes, const std::string& what) {
  if (book_ == nullptr) return {};
  return book_->fit(bytes, what, [&]() REQUIRES(book_->mutex) {
    Entry& entry = book_->entries.at(id_);
    entry.bytes += bytes;
    entry.evicted -= std::min(bytes, entry.evicted);
  });
}

}  // namespace chimera
