// PinLimit: how long sequences keep modules in memory that others have replaced.
//
// A sequence is left behind when the modules of its table are not those of the current one. It
// finishes there (InFlight::kPin), however long that takes, and what it keeps is memory that
// nobody else has any use for. With a limit, it keeps them for so long and no longer. Tables that
// differ in biases alone keep the same modules, and leave nobody behind.
//
// Thread safety: engine thread only.
#pragma once

#include <memory>

#include "daemon/engine/engine.h"
#include "daemon/engine/live_sequences.h"
#include "router/routing_table.h"

namespace chimera {

class PinLimit {
 public:
  /// `limit`: none, forever.
  PinLimit(std::optional<std::chrono::milliseconds> limit, PinnedUntil then)
      : limit_(limit), then_(then) {}

  /// Moves sequences that were left behind longer ago than the limit to `current`, or ends them.
  /// True when there were any. To be called between steps; costs a look at each sequence.
  /// Those on `canary` (null: none) are not left behind.
  bool enforce(LiveSequences& live, const std::shared_ptr<const RoutingTable>& current,
               const RoutingTable* canary) const;

 private:
  bool over(Sequence& sequence, bool left, Clock::time_point now) const;
  Status ended(const Sequence& sequence) const;

  const std::optional<std::chrono::milliseconds> limit_;
  const PinnedUntil then_;
};

}  // namespace chimera
