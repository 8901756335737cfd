// What happens at the daemon, told by looking at it again and again: differences of two answers to
// `modules` and `epochs`, as server-sent events.
//
// Thread safety: none; by the thread of the server's loop.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>

#include "base/json/json.h"

namespace chimera::gateway::native {

/// "event: NAME", "data: …" and an empty line.
std::string sse(std::string_view name, const Json& data);

class Changes {
 public:
  /// The daemon answered. The events since the last look, "" when there is nothing to tell: `epoch`
  /// (a record of the history), `module` (name, version, state, enabled, bias; "gone" when it is
  /// not listed any more), `job` (as `modules` has it, when its phase is another) and `daemon`,
  /// when it had been away. Of the first look nothing: who listens begins with state().
  std::string look(const Json& modules, const Json& epochs);
  /// It did not: `daemon`, once.
  std::string away(std::string_view reason);

  /// `state`, where a listener begins: as it was at the last look.
  std::string state() const;
  bool begun() const { return begun_; }

 private:
  /// What there is to know an epoch by that was told.
  struct Told {
    uint64_t epoch = 0;
    std::string time, composition;
    bool operator==(const Told&) const = default;
  };
  static Told told_by(const Json& record);
  /// Whether it counts on from what was told. A daemon that was started on an empty or an older
  /// state directory does not.
  bool goes_on(const Json& epochs) const;
  std::string new_epochs(const Json& epochs);
  std::string new_modules(const Json& modules);
  std::string new_jobs(const Json& modules);

  bool begun_ = false;
  std::string away_;                           // the reason; "": it is there
  Told told_;                                  // the newest
  std::map<std::string, Json> modules_;        // by name and version
  std::map<std::string, std::string> phases_;  // of jobs, by id
};

}  // namespace chimera::gateway::native
