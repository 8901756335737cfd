// What the router counted since somebody asked for a new count: the engine's counters only grow.
//
// Thread safety: none; the server uses it from one worker.
#pragma once

#include <string>

#include "router/usage.h"

namespace chimera {

class RoutingWindow {
 public:
  /// Counts from the start of the daemon.
  RoutingWindow();

  /// What was added to `total` since the last reset.
  RouterStats since_reset(const RouterStats& total) const;
  /// What comes after `total` counts from now on.
  void reset(const RouterStats& total);
  /// "2024-01-02T03:04:05Z" of the last reset.
  const std::string& since() const { return since_; }

 private:
  RouterStats before_;
  std::string since_;
};

}  // namespace chimera
