// What the gateway counts, and what it tells of the daemon, in the text format of Prometheus.
// docs/metrics.md lists the names; they follow OpenTelemetry's conventions for HTTP servers and
// generative models where those have one.
//
// Thread safety: by the thread of the server's loop.
#pragma once

#include <memory>
#include <string>
#include <string_view>

#include "base/json/json.h"
#include "clients/gateway/run/watch.h"

namespace chimera::gateway {

/// What the daemon said of itself; null for what could not be asked.
struct DaemonState {
  Json stats, modules, routing;
};

class Metrics {
 public:
  Metrics();
  ~Metrics();
  Metrics(const Metrics&) = delete;
  Metrics& operator=(const Metrics&) = delete;

  /// An answered request. `route` is of a fixed set, "/v1/models/{id}".
  void http(std::string_view method, std::string_view route, unsigned status, double seconds);
  void connections(size_t open);

  /// Counts one run. `operation`: "chat", "text_completion" or "embeddings"; `model` and
  /// `principal` are names of the configuration, never what a client made up. The watch may outlive
  /// this object.
  std::unique_ptr<RunWatch> watch(std::string operation, std::string model, std::string principal);

  std::string text(const DaemonState& daemon) const;

 private:
  class Watch;
  struct Impl;
  std::shared_ptr<Impl> impl_;  // and of the watches
};

}  // namespace chimera::gateway
