// AdapterStore: adapters within a budget of memory (`memory.adapters`). All of them are registered,
// some are in memory: those that requests use, and of the others the last used ones that fit.
//
// A request that uses some that are not in memory waits, while the others go on: its adapters are
// read by a thread of the store, after idle ones have made room, least recently used first. What a
// request holds is not evicted. Requests are given memory in the order in which they asked for it
// and for all of their adapters at once, so none of them holds what another one waits for without
// being able to begin, and none waits for ever while others take turns.
//
// Invariants: (1) what is in memory or being read never takes more than the limit, but for adapters
// whose modules have gone and that a request still holds; (2) an adapter that somebody holds stays
// where it is; (3) a Wait is told at most once, and not any more once it is destroyed; (4) what
// fails to be read stays registered, and only those that waited for it hear of it.
//
// Thread safety: all methods from any thread. One mutex, never held while an adapter is read, made
// or destroyed. Sources, what they give and Waits may outlive the store; then nothing is read any
// more.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "experts/lora/adapter_source.h"

namespace chimera {

struct AdapterStats {
  uint64_t limit = 0, bytes = 0;  // bytes: in memory or being read
  int64_t registered = 0, resident = 0, in_use = 0;
  int64_t waiting = 0;  // requests
  uint64_t reads = 0, read_failures = 0, evictions = 0;
};

class AdapterStore {
  struct Book;
  struct Entry;
  struct Asked;
  class Source;
  class Use;

 public:
  using AdapterPtr = std::shared_ptr<const Adapter>;
  using SourcePtr = std::shared_ptr<const AdapterSource>;
  /// Gives the same adapter, to the bit, however often it is called; an error that clients may
  /// read when it cannot.
  using Read = std::function<Result<AdapterPtr>()>;

  /// `limit`: bytes, at least 1.
  explicit AdapterStore(uint64_t limit);
  ~AdapterStore();  // waits for the read in progress; requests that wait are told `unavailable`
  AdapterStore(const AdapterStore&) = delete;
  AdapterStore& operator=(const AdapterStore&) = delete;

  /// Ok when an adapter of so many bytes can ever be in memory; else resource_exhausted.
  Status check_size(const std::string& module, uint64_t bytes) const;
  /// Registers an adapter for as long as the answer is kept. `adapter` is what `read` gives: it
  /// stays where there is room beside the others, and goes where there is none. REQUIRES:
  /// check_size(), of adapter->bytes.
  SourcePtr add(const std::string& module, AdapterPtr adapter, Read read);

  /// A request's place among those that wait for adapters; giving it up ends the waiting.
  class Wait {
   public:
    ~Wait();
    Wait(const Wait&) = delete;
    Wait& operator=(const Wait&) = delete;

    /// Whether there is an answer.
    bool over() const;
    /// The adapters, in the order of their sources. REQUIRES: over().
    Result<std::vector<AdapterPtr>> answer() const;

   private:
    friend class AdapterStore;
    Wait(std::shared_ptr<Book> book, std::shared_ptr<Asked> asked)
        : book_(std::move(book)), asked_(std::move(asked)) {}
    const std::shared_ptr<Book> book_;
    const std::shared_ptr<Asked> asked_;
  };
  /// Asks for all of `sources`, which came from add(). `on_over` is called once there is an answer,
  /// on any thread and perhaps in here, with the mutex held: it is to wake somebody and no more.
  std::unique_ptr<Wait> ask(std::vector<SourcePtr> sources, std::function<void()> on_over);
  /// Whether requests wait for memory that others hold. A new one that uses adapters is to ask,
  /// then, and not to hold() what is there: it would keep in memory what is to make room.
  bool contended() const;

  AdapterStats stats() const;

 private:
  const std::shared_ptr<Book> book_;
};

}  // namespace chimera
