// The memory plan: a budget, and one account of everything that is held against it.
//
// Whoever needs memory for long takes a place in the ledger first; it is given up with the object
// that it stands for, so copies of a module that streams still use count until the last of them
// ends. What does not fit is refused before anything is read, and the refusal says what would have
// to go.
//
// Invariant: the sum of all places never exceeds the budget by take(); only what is already there
// may turn out larger than was thought (Place::correct), and then nothing is taken until it fits.
//
// Thread safety: all of Ledger from any thread; a Place belongs to one thread at a time. Places may
// outlive the ledger.
#pragma once

#include <algorithm>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/enum_names.h"
#include "base/io/memory_limit.h"
#include "base/status.h"

namespace chimera {

/// How much the daemon may hold, and why.
struct MemoryBudget {
  uint64_t bytes = 0;    // 0: no limit is known, nothing is refused
  uint64_t limit = 0;    // of the machine, container or process; 0 where it is not known
  uint64_t reserve = 0;  // limit - bytes where bytes is automatic: for what is not in the account
  std::string source;    // of the limit (MemoryLimit::source), or "memory.budget"
};

/// Left to the C library, the stacks and code of the process and to the kernel's bookkeeping: a
/// sixteenth of the limit, but 48 MiB at least and 2 GiB at most. (memory_budget() leaves more of
/// address space, for stacks.)
uint64_t memory_reserve(uint64_t limit);
/// As stated in the deployment, else the limit less the reserve.
MemoryBudget memory_budget(std::optional<uint64_t> stated, const MemoryLimit& limit);

enum class MemoryUse : uint8_t {
  kBackbone,  // weights of the backbone
  kExperts,   // the base experts that came with it
  kModule,    // weights of a module, or what its plugin process holds
  kKeyValue,  // the key/value cache, at its largest
  kScratch,   // of forward passes, at their largest
  kTables,    // routing tables, as many as may be in use at once
  kQueues,    // answers that clients have not read yet, at their most
  kSamples,   // what gates saw of recent traffic
  kAdapters   // adapters that are read when they are used, at their most
};
inline constexpr auto kMemoryUseNames =
    enum_names<MemoryUse>("backbone", "experts", "module", "key_value", "scratch", "tables",
                          "queues", "gate_samples", "adapters");

class Ledger {
  struct Book;

 public:
  /// A place in the account; given up when destroyed.
  class Place {
   public:
    Place() = default;
    Place(Place&& other) noexcept = default;
    Place& operator=(Place&& other) noexcept;
    ~Place();
    /// What it came to, once that is known.
    void correct(uint64_t bytes);
    /// Part of it goes out of memory, and may be wanted back: grow_back() of as much.
    void evict(uint64_t bytes);
    /// resource_exhausted, and nothing changes, when that does not fit any more; as take().
    Status grow_back(uint64_t bytes, const std::string& what);

   private:
    friend class Ledger;
    Place(std::shared_ptr<Book> book, uint64_t id) : book_(std::move(book)), id_(id) {}
    std::shared_ptr<Book> book_;
    uint64_t id_ = 0;
  };

  struct Entry {
    MemoryUse use = MemoryUse::kModule;
    std::string name;  // of the module, with its version; else empty
    uint64_t bytes = 0;
    uint64_t evicted = 0;  // not among them: may have to come back
  };
  struct Account {
    MemoryBudget budget;
    uint64_t used = 0;
    std::vector<Entry> entries;  // in the order they came
    uint64_t free() const { return budget.bytes - std::min(budget.bytes, used); }
  };

  explicit Ledger(MemoryBudget budget);

  /// Who is asked before anything is refused, without a lock. Null: nobody is.
  struct Idle {
    /// What nobody uses, bytes of the account.
    std::function<uint64_t()> bytes = nullptr;
    /// Lets go of some of it and says whether there was any. Again and again, where all of it would
    /// be enough; what would be refused all the same takes nothing from anybody.
    std::function<bool()> let_go = nullptr;
  };
  void set_idle(Idle idle);
  /// resource_exhausted when `bytes` do not fit; `what` names them in the message.
  Result<Place> take(MemoryUse use, const std::string& name, uint64_t bytes,
                     const std::string& what);
  /// Whether take() would be refused now, when what nobody uses has gone.
  Status check(uint64_t bytes, const std::string& what) const;
  Account account() const;

 private:
  std::shared_ptr<Book> book_;
};

/// "13.0 GiB: backbone 1.2 GiB, experts 8.0 GiB, module legal 1.6 GiB": what an account consists
/// of.
std::string describe(const Ledger::Account& account);

}  // namespace chimera
