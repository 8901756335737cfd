// In which order changes are made: those that concern one module in the order in which they were
// asked for, others side by side.
//
// What loads nothing (an edit: bias, enabled or not) overtakes what loads for seconds, as long as
// its module is there to be edited; a load that ends after it takes the edit over. It waits when
// the module is still to come, and so does what takes a module out that is being loaded. For
// another edit it waits only until that was started: whoever makes edits makes them in the order in
// which they were started, many at a time if need be. A whole
// composition (apply, rollback) waits for everything before it, and loads wait for it.
// Revocations are not in here: they wait for nobody, and end every load of their module that was
// asked for before them.
//
// Thread safety: all methods from any thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <functional>
#include <list>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/threads/mutex.h"

namespace chimera {

/// What an edit sets.
struct ModuleEdit {
  std::optional<bool> enabled;
  std::optional<float> bias;
};

/// A change that was asked for and is not done.
struct Change {
  enum class Kind : uint8_t { kEdit, kRemove, kLoad, kComposition };
  Kind kind = Kind::kEdit;
  uint64_t turn = 0;               // position among all that is asked for
  std::vector<std::string> names;  // of modules, and directories of modules
  bool any = false;                // names are not known yet: it may be about any module

  bool loads() const { return kind == Kind::kLoad || kind == Kind::kComposition; }
};

class ChangeQueue {
 public:
  /// More changes than this are refused as resource_exhausted.
  static constexpr size_t kMaxWaiting = 256;

  /// `is_loaded` tells whether a module is in the current composition; it may not call back.
  explicit ChangeQueue(std::function<bool(const std::string& name)> is_loaded);

  /// Calls `start` once, on this thread or, when the change has to wait, on that of a later end().
  Status add(std::shared_ptr<const Change> change, std::function<void()> start);
  /// Starts the change `turn` out of its order, if it waits: because it was cancelled.
  void start_now(uint64_t turn);
  /// The change was made or refused.
  void end(const std::shared_ptr<const Change>& change);

  /// Whether a load of that module was asked for before `turn` and is not done.
  bool loading(const std::string& name, uint64_t turn) const;
  /// An edit was made, as the change `turn`: loads that were asked for before it take it over.
  void note_edit(uint64_t turn, const std::string& name, const ModuleEdit& edit);
  /// What was edited since `change` was asked for, by name.
  std::map<std::string, ModuleEdit> edits_since(const std::shared_ptr<const Change>& change) const;

  /// A revocation was asked for as `turn`.
  void note_revocation(uint64_t turn, const std::string& name);
  /// Whether a revocation of that name was asked for after `turn`.
  bool revoked_since(uint64_t turn, const std::string& name) const;

 private:
  struct Entry {
    std::shared_ptr<const Change> change;
    std::function<void()> start;  // empty: called
    bool started = false;         // and it has returned
    std::map<std::string, ModuleEdit> edits;
  };
  /// Whether `later` has to wait for `earlier`.
  bool waits(const Change& later, const Entry& earlier) const REQUIRES(mutex_);
  /// The first that need not wait any more; null when there is none.
  Entry* startable() REQUIRES(mutex_);
  /// Starts what need not wait any more, in order.
  void start_all() EXCLUDES(mutex_);

  const std::function<bool(const std::string&)> is_loaded_;
  mutable Mutex mutex_;
  std::list<Entry> entries_ GUARDED_BY(mutex_);  // in the order of add()
  std::map<std::string, uint64_t> revocations_ GUARDED_BY(mutex_);
};

}  // namespace chimera
