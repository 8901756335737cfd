// A bench's view of its daemon: waiting for readiness, and calls whose failure ends the bench.
//
// Thread safety: a Session by one thread; free functions from any.
#pragma once

#include <stdexcept>
#include <string>
#include <vector>

#include "base/json/json.h"
#include "chimera_client/client.h"
#include "daemon_process.h"

namespace chimera::bench {

class Session {
 public:
  explicit Session(const DaemonProcess& daemon);
  client::Client& client() { return client_; }
  /// Throws std::runtime_error with the daemon's message when the call fails.
  Json call(const wire::Call& call);
  /// Returns bench::now_s at the first answered health call; throws after `seconds`.
  double wait_ready(double seconds);
  int64_t vocab();

 private:
  client::Client client_;
};

/// A greedy request over token ids with exactly `max_tokens` tokens of answer.
wire::Generate greedy_request(std::vector<int32_t> tokens, int64_t max_tokens);
/// Ids that are valid in any vocabulary of at least `vocab`, different for every `seed`.
std::vector<int32_t> prompt_of(int64_t length, int64_t vocab, uint32_t seed);
[[noreturn]] void fail(const client::Error& error);

}  // namespace chimera::bench
