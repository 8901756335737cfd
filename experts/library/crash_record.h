// What code of a library leaves behind when it ends this process: the record that keeps it from
// being started again (quarantine.h), and a line that names it.
//
// After a fatal signal nothing can be computed any more. So the record is made when the library is
// loaded; the handler adds what happened, when and on which epoch, with calls that are allowed
// there (signal-safety(7)), and hands the signal on to whoever had it before.
//
// A thread is in a library while a CrashScope of it lives. Faults of threads that a library started
// itself, _exit and SIGKILL are laid to nobody.
//
// Thread safety: a record is immutable; a scope belongs to its thread.
#pragma once

#include <cstdint>
#include <string>

#include "experts/library/backend.h"

namespace chimera {

class CrashRecord {
 public:
  /// Of a library with that library_key(). Installs the handlers, once per process.
  CrashRecord(const LibrarySource& source, const std::string& key, const std::string& state_dir);

  /// `number`: of the signal; 0: exit was called. `during`: "in a forward call". Async-signal-safe.
  void write(int number, const char* during, uint64_t epoch) const;

 private:
  const std::string dir_, path_;
  const std::string head_;  // of the record, up to the reason
  const std::string line_;  // of the log, from the event to the reason
  const std::string hint_;  // and after it
};

/// While one lives, what ends the process on this thread is laid to `record`; null: to nobody.
class CrashScope {
 public:
  /// `during` is static text. `epoch`: of the routing table; 0: none.
  CrashScope(const CrashRecord* record, const char* during, uint64_t epoch = 0);
  /// The same on a thread that helps with the work of `other`, which may be null and outlives it.
  explicit CrashScope(const CrashScope* other)
      : CrashScope(other == nullptr ? nullptr : other->record_,
                   other == nullptr ? "" : other->during_, other == nullptr ? 0 : other->epoch_) {}
  ~CrashScope();
  CrashScope(const CrashScope&) = delete;
  CrashScope& operator=(const CrashScope&) = delete;

  /// Of this thread; null when it is in no library.
  static const CrashScope* current();
  void write(int number) const { record_->write(number, during_, epoch_); }

 private:
  const CrashRecord* const record_;
  const char* const during_;
  const uint64_t epoch_;
  const CrashScope* const outer_;
};

}  // namespace chimera
