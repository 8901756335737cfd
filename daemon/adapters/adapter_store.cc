#include "daemon/adapters/adapter_store.h"

#include <fmt/format.h>
#include <pthread.h>

#include <algorithm>
#include <chrono>
#include <deque>
#include <list>
#include <new>
#include <set>
#include <thread>
#include <utility>

#include "base/bytes.h"
#include "base/log/log.h"
#include "base/threads/background.h"
#include "base/threads/mutex.h"

namespace chimera {

/// One adapter; all but the first three under the mutex of the book.
struct AdapterStore::Entry {
  const std::string module;
  const uint64_t bytes;  // in memory
  const Read read;
  AdapterPtr adapter = nullptr;  // null: not in memory
  bool reading = false;          // or to be read: its place is taken
  bool gone = false;             // its module is
  int64_t uses = 0;
  uint64_t last_used = 0;  // Book::clock of the end of its last use
};

/// What a request waits for; all but `sources` under the mutex of the book.
struct AdapterStore::Asked {
  enum class State : uint8_t { kQueued, kReading, kOver };
  const std::vector<SourcePtr> sources;
  std::vector<std::shared_ptr<Entry>> entries = {};
  std::function<void()> on_over = nullptr;
  State state = State::kQueued;
  std::vector<AdapterPtr> held = {};  // of the entries; let go of without the mutex
  Status failure = {};
};

struct AdapterStore::Book : std::enable_shared_from_this<Book> {
  explicit Book(uint64_t bytes) : limit(bytes) {}

  using EntryPtr = std::shared_ptr<Entry>;
  /// Memory to be let go of, and whose it was.
  struct Rubbish {
    std::string module;
    AdapterPtr adapter;
    bool evicted = false;
  };

  AdapterPtr use(const EntryPtr& entry) REQUIRES(mutex);
  void release(const EntryPtr& entry, AdapterPtr adapter) EXCLUDES(mutex);
  void set_idle(const EntryPtr& entry) REQUIRES(mutex);
  void not_idle(const EntryPtr& entry) REQUIRES(mutex);
  void throw_away(Rubbish rubbish) REQUIRES(mutex);
  void evict(const EntryPtr& entry) REQUIRES(mutex);
  /// Evicts what is idle and not among `spared` until `bytes` fit; false, and nothing is evicted,
  /// where they would not.
  bool make_room(uint64_t bytes, const std::vector<EntryPtr>& spared) REQUIRES(mutex);
  /// Begins to read for those whose turn it is.
  void pump() REQUIRES(mutex);
  bool begin(Asked& asked) REQUIRES(mutex);
  void settle(Asked& asked) REQUIRES(mutex);
  void fail(Asked& asked, Status status) REQUIRES(mutex);
  void take_in(const EntryPtr& entry, const Result<AdapterPtr>& read) REQUIRES(mutex);
  bool wanted(const EntryPtr& entry) const REQUIRES(mutex);
  void run() EXCLUDES(mutex);
  Result<AdapterPtr> read(const Entry& entry) EXCLUDES(mutex);

  const uint64_t limit;
  mutable Mutex mutex;
  CondVar to_do;
  bool closed GUARDED_BY(mutex) = false;
  uint64_t clock GUARDED_BY(mutex) = 0;
  uint64_t used GUARDED_BY(mutex) = 0;
  int64_t registered GUARDED_BY(mutex) = 0, resident GUARDED_BY(mutex) = 0;
  int64_t in_use GUARDED_BY(mutex) = 0;
  uint64_t reads GUARDED_BY(mutex) = 0, failures GUARDED_BY(mutex) = 0;
  uint64_t evictions GUARDED_BY(mutex) = 0;
  std::set<std::pair<uint64_t, EntryPtr>> idle GUARDED_BY(mutex);  // by last_used
  uint64_t idle_bytes GUARDED_BY(mutex) = 0;
  std::list<std::shared_ptr<Asked>> asked
      GUARDED_BY(mutex);  // in order, without those that are over
  std::deque<EntryPtr> jobs GUARDED_BY(mutex);
  std::vector<Rubbish> rubbish GUARDED_BY(mutex);
  std::thread thread;
};

/// An adapter while somebody holds it.
class AdapterStore::Use {
 public:
  Use(std::shared_ptr<Book> book, std::shared_ptr<Entry> entry)
      : adapter(entry->adapter), book_(std::move(book)), entry_(std::move(entry)) {}
  ~Use() { book_->release(entry_, std::move(adapter)); }
  Use(const Use&) = delete;
  Use& operator=(const Use&) = delete;

  AdapterPtr adapter;

 private:
  const std::shared_ptr<Book> book_;
  const std::shared_ptr<Entry> entry_;
};

class AdapterStore::Source final : public AdapterSource {
 public:
  Source(std::shared_ptr<Book> book, std::shared_ptr<Entry> of)
      : entry(std::move(of)), book_(std::move(book)) {}
  ~Source() override {
    const MutexLock lock(book_->mutex);
    entry->gone = true;
    --book_->registered;
    if (entry->adapter == nullptr || entry->uses > 0) return;
    book_->not_idle(entry);
    book_->used -= entry->bytes;
    --book_->resident;
    book_->throw_away({entry->module, std::move(entry->adapter)});
    book_->pump();
  }

  AdapterPtr hold() const override {
    const MutexLock lock(book_->mutex);
    return entry->adapter == nullptr ? nullptr : book_->use(entry);
  }
  uint64_t resident_bytes() const override {
    const MutexLock lock(book_->mutex);
    return entry->adapter == nullptr ? 0 : entry->bytes;
  }

  const std::shared_ptr<Entry> entry;

 private:
  const std::shared_ptr<Book> book_;
};

AdapterStore::AdapterPtr AdapterStore::Book::use(const EntryPtr& entry) {
  auto use = std::make_shared<Use>(shared_from_this(), entry);
  if (entry->uses++ == 0) {
    not_idle(entry);
    ++in_use;
  }
  const Adapter* adapter = use->adapter.get();
  return {std::move(use), adapter};
}

void AdapterStore::Book::release(const EntryPtr& entry, AdapterPtr adapter) {
  const MutexLock lock(mutex);
  if (--entry->uses > 0) return;
  --in_use;
  if (entry->gone) {
    entry->adapter = nullptr;
    used -= entry->bytes;
    --resident;
    throw_away({entry->module, std::move(adapter)});
  } else {
    adapter = nullptr;  // the entry has it
    set_idle(entry);
  }
  pump();
}

void AdapterStore::Book::set_idle(const EntryPtr& entry) {
  entry->last_used = ++clock;
  idle.emplace(entry->last_used, entry);
  idle_bytes += entry->bytes;
}

void AdapterStore::Book::not_idle(const EntryPtr& entry) {
  if (idle.erase({entry->last_used, entry}) > 0) idle_bytes -= entry->bytes;
}

void AdapterStore::Book::throw_away(Rubbish what) {
  rubbish.push_back(std::move(what));
  to_do.notify_all();
}

void AdapterStore::Book::evict(const EntryPtr& entry) {
  not_idle(entry);
  used -= entry->bytes;
  --resident;
  ++evictions;
  throw_away({entry->module, std::move(entry->adapter), true});
}

bool AdapterStore::Book::make_room(uint64_t bytes, const std::vector<EntryPtr>& spared) {
  const auto is_spared = [&](const EntryPtr& entry) {
    return std::find(spared.begin(), spared.end(), entry) != spared.end();
  };
  uint64_t kept = used - idle_bytes;
  for (const EntryPtr& entry : spared) {
    if (idle.contains({entry->last_used, entry})) kept += entry->bytes;
  }
  if (kept + bytes > limit) return false;
  for (auto at = idle.begin(); at != idle.end() && used + bytes > limit;) {
    const EntryPtr entry = (at++)->second;
    if (!is_spared(entry)) evict(entry);
  }
  return true;
}

void AdapterStore::Book::pump() {
  for (auto at = asked.begin(); at != asked.end();) {
    const std::shared_ptr<Asked> next = *at++;  // begin() may take it off the list
    if (next->state == Asked::State::kQueued && !begin(*next)) return;
  }
}

bool AdapterStore::Book::begin(Asked& next) {
  uint64_t lacking = 0;
  for (const EntryPtr& entry : next.entries) {
    if (entry->adapter == nullptr && !entry->reading) lacking += entry->bytes;
  }
  if (!make_room(lacking, next.entries)) return false;
  next.state = Asked::State::kReading;
  for (size_t i = 0; i < next.entries.size(); ++i) {
    const EntryPtr& entry = next.entries[i];
    if (entry->adapter != nullptr) {
      next.held[i] = use(entry);
    } else if (!std::exchange(entry->reading, true)) {
      used += entry->bytes;
      jobs.push_back(entry);
      to_do.notify_all();
    }
  }
  settle(next);
  return true;
}

void AdapterStore::Book::settle(Asked& one) {
  const auto there = [](const AdapterPtr& adapter) { return adapter != nullptr; };
  if (!std::all_of(one.held.begin(), one.held.end(), there)) return;
  fail(one, {});
}

/// Ends the waiting with that status.
void AdapterStore::Book::fail(Asked& one, Status status) {
  one.state = Asked::State::kOver;
  one.failure = std::move(status);
  one.on_over();
  asked.remove_if([&](const auto& other) { return other.get() == &one; });
}

bool AdapterStore::Book::wanted(const EntryPtr& entry) const {
  return std::any_of(asked.begin(), asked.end(), [&](const auto& one) {
    return one->state == Asked::State::kReading &&
           std::find(one->entries.begin(), one->entries.end(), entry) != one->entries.end();
  });
}

void AdapterStore::Book::take_in(const EntryPtr& entry, const Result<AdapterPtr>& read) {
  entry->reading = false;
  if (read.ok()) {
    entry->adapter = *read;
    ++reads;
    ++resident;
    set_idle(entry);
  } else {
    used -= entry->bytes;
    ++failures;
  }
  for (auto at = asked.begin(); at != asked.end();) {
    const std::shared_ptr<Asked> one = *at++;
    const auto found = std::find(one->entries.begin(), one->entries.end(), entry);
    if (one->state != Asked::State::kReading || found == one->entries.end()) continue;
    if (!read.ok()) {
      fail(*one, read.status());
      continue;
    }
    one->held[static_cast<size_t>(found - one->entries.begin())] = use(entry);
    settle(*one);
  }
  if (entry->gone && entry->adapter != nullptr && entry->uses == 0) {
    not_idle(entry);
    used -= entry->bytes;
    --resident;
    throw_away({entry->module, std::move(entry->adapter)});
  }
  pump();
}

Result<AdapterStore::AdapterPtr> AdapterStore::Book::read(const Entry& entry) {
  using Clock = std::chrono::steady_clock;
  const Clock::time_point start = Clock::now();
  const BackgroundScope beside_streams;
  Result<AdapterPtr> adapter =
      Status(Code::kResourceExhausted, "module " + entry.module + ": no memory to read its adapter",
             "try again later, or lower memory.adapters");
  try {
    adapter = entry.read();
  } catch (const std::bad_alloc&) {  // is what it says already
  }
  const double ms = std::chrono::duration<double, std::milli>(Clock::now() - start).count();
  log::debug("adapter_read", {{"module", entry.module},
                              {"bytes", entry.bytes},
                              {"ms", ms},
                              {"result", code_name(adapter.status().code())}});
  return adapter;
}

void AdapterStore::Book::run() {
  pthread_setname_np(pthread_self(), "chimera-adapter");
  ReleasableMutexLock lock(mutex);
  for (;;) {
    to_do.wait(mutex,
               [this]() REQUIRES(mutex) { return closed || !jobs.empty() || !rubbish.empty(); });
    if (!rubbish.empty()) {  // before what is read in its place
      std::vector<Rubbish> old = std::exchange(rubbish, {});
      lock.unlock();
      for (Rubbish& one : old) {
        one.adapter = nullptr;
        if (one.evicted) log::debug("adapter_evicted", {{"module", one.module}});
      }
      lock.lock();
      continue;
    }
    if (closed) return;
    const EntryPtr entry = std::move(jobs.front());
    jobs.pop_front();
    if (!wanted(entry)) {
      entry->reading = false;
      used -= entry->bytes;
      pump();
      continue;
    }
    lock.unlock();
    {
      const Result<AdapterPtr> adapter = read(*entry);
      const MutexLock again(mutex);
      take_in(entry, adapter);
    }  // goes without the mutex where nobody wants it any more
    lock.lock();
  }
}

AdapterStore::AdapterStore(uint64_t limit) : book_(std::make_shared<Book>(limit)) {
  book_->thread = std::thread([book = book_.get()] { book->run(); });
}

AdapterStore::~AdapterStore() {
  {
    const MutexLock lock(book_->mutex);
    book_->closed = true;
    const Status stopped(Code::kUnavailable, "the daemon is stopping");
    while (!book_->asked.empty()) {
      const std::shared_ptr<Asked> one = book_->asked.front();
      book_->fail(*one, stopped);
    }
    book_->to_do.notify_all();
  }
  book_->thread.join();
}

Status AdapterStore::check_size(const std::string& module, uint64_t bytes) const {
  if (bytes <= book_->limit) return {};
  return {Code::kResourceExhausted,
          fmt::format("module {}: found an adapter of {} (expected at most {}, memory.adapters)",
                      module, bytes_text(bytes), bytes_text(book_->limit)),
          "raise memory.adapters in the deployment"};
}

AdapterStore::SourcePtr AdapterStore::add(const std::string& module, AdapterPtr adapter,
                                          Read read) {
  auto entry = std::make_shared<Entry>(Entry{module, adapter->bytes, std::move(read)});
  auto source = std::make_shared<Source>(book_, entry);
  const MutexLock lock(book_->mutex);
  ++book_->registered;
  // Loading does not push out what requests used, or many loads would leave nothing of it.
  if (book_->used + entry->bytes > book_->limit) return source;
  book_->used += entry->bytes;
  ++book_->resident;
  entry->adapter = std::move(adapter);
  book_->set_idle(entry);
  return source;
}

AdapterStore::Wait::~Wait() {
  const MutexLock lock(book_->mutex);
  book_->asked.remove(asked_);
  book_->pump();
}

bool AdapterStore::Wait::over() const {
  const MutexLock lock(book_->mutex);
  return asked_->state == Asked::State::kOver;
}

Result<std::vector<AdapterStore::AdapterPtr>> AdapterStore::Wait::answer() const {
  const MutexLock lock(book_->mutex);
  if (!asked_->failure.ok()) return asked_->failure;
  return asked_->held;
}

std::unique_ptr<AdapterStore::Wait> AdapterStore::ask(std::vector<SourcePtr> sources,
                                                      std::function<void()> on_over) {
  auto asked = std::make_shared<Asked>(Asked{std::move(sources)});
  asked->on_over = std::move(on_over);
  uint64_t bytes = 0;
  std::string names;
  for (const SourcePtr& source : asked->sources) {
    asked->entries.push_back(static_cast<const Source&>(*source).entry);
    bytes += asked->entries.back()->bytes;
    names += (names.empty() ? "" : ", ") + asked->entries.back()->module;
  }
  asked->held.resize(asked->entries.size());
  std::unique_ptr<Wait> wait(new Wait(book_, asked));
  const MutexLock lock(book_->mutex);
  book_->asked.push_back(asked);
  if (book_->closed) {
    book_->fail(*asked, {Code::kUnavailable, "the daemon is stopping"});
  } else if (bytes > book_->limit) {
    book_->fail(*asked,
                {Code::kResourceExhausted,
                 fmt::format("modules {}: found adapters of {} together (expected at most {}, "
                             "memory.adapters)",
                             names, bytes_text(bytes), bytes_text(book_->limit)),
                 "name fewer of them in one request, or raise memory.adapters"});
  } else {
    book_->pump();
  }
  return wait;
}

bool AdapterStore::contended() const {
  const MutexLock lock(book_->mutex);
  return std::any_of(book_->asked.begin(), book_->asked.end(),
                     [](const auto& one) { return one->state == Asked::State::kQueued; });
}

AdapterStats AdapterStore::stats() const {
  const MutexLock lock(book_->mutex);
  return {.limit = book_->limit,
          .bytes = book_->used,
          .registered = book_->registered,
          .resident = book_->resident,
          .in_use = book_->in_use,
          .waiting = static_cast<int64_t>(book_->asked.size()),
          .reads = book_->reads,
          .read_failures = book_->failures,
          .evictions = book_->evictions};
}

}  // namespace chimera
