#include "daemon/memory/ledger.h"

#include <fmt/format.h>

#include <algorithm>
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

  const MemoryBudget budget;
  mutable Mutex mutex;
  uint64_t next_id GUARDED_BY(mutex) = 1;
  std::map<uint64_t, Entry> entries GUARDED_BY(mutex);
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
  const MutexLock lock(book_->mutex);
  CHIMERA_RETURN_IF_ERROR(book_->check(bytes, what));
  const uint64_t id = book_->next_id++;
  book_->entries.emplace(id, Entry{use, name, bytes, 0});
  return Place(book_, id);
}

Status Ledger::check(uint64_t bytes, const std::string& what) const {
  const MutexLock lock(book_->mutex);
  return book_->check(bytes, what);
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
  const MutexLock lock(book_->mutex);
  CHIMERA_RETURN_IF_ERROR(book_->check(bytes, what));
  Entry& entry = book_->entries.at(id_);
  entry.bytes += bytes;
  entry.evicted -= std::min(bytes, entry.evicted);
  return {};
}

}  // namespace chimera
