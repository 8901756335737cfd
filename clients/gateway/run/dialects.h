// Which dialect the daemon's model speaks, asked of its chat template.
//
// The template is shown a conversation with a call of a tool, and how it writes that down is how
// the model will (dialect/dialect.h). What was found holds for seconds: a daemon may come back with
// another model, and many requests come at once.
//
// Thread safety: by the thread of the server's loop.
#pragma once

#include <chrono>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "clients/gateway/api/api_error.h"
#include "clients/gateway/api/upstream.h"
#include "clients/gateway/dialect/dialect.h"
#include "clients/gateway/run/job.h"

namespace chimera::gateway {

class Dialects {
 public:
  /// `fixed`: what the configuration says; else it is asked.
  explicit Dialects(std::optional<Dialect> fixed);

  /// Makes a job ready whose calls are chats: its answerer is told how to read, its calls ask for
  /// the text that this takes. The error, if there is one, is the job's: no daemon, no template, or
  /// tools that the model cannot call. `job` and `daemon` live until `ready` is called; this may
  /// not.
  void prepare(Upstream& daemon, Job& job, std::function<void(std::optional<ApiError>)> ready);

 private:
  struct Known {
    Reading reading;
    std::chrono::steady_clock::time_point at;
  };
  using Cache = std::map<std::string, Known>;
  struct Asked;
  class Question;

  const std::optional<Dialect> fixed_;
  const std::shared_ptr<Cache> cache_;
};

}  // namespace chimera::gateway
