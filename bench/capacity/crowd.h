// Many clients of one daemon at once, on the connections that the asynchronous client opens for so
// many requests: each sends one short request after another, as fast as they are answered.
//
// Thread safety: by the thread that made it.
#pragma once

#include <cstdint>
#include <functional>
#include <memory>
#include <vector>

#include "base/threads/mutex.h"
#include "chimera_client/async_client.h"
#include "daemon_process.h"

namespace chimera::bench {

/// Clients of one daemon until it ends.
class Crowd {
 public:
  /// Answers of `answer` tokens each.
  Crowd(const DaemonProcess& daemon, int64_t vocab, int64_t answer);

  struct Seen {
    std::vector<double> first_ms, gap_ms;
    uint64_t tokens = 0, answers = 0, failed = 0;
  };

  /// So many clients until `over(answers)`, which is asked after every answer, on a thread of its
  /// own; then waits for their last ones.
  Seen run(int clients, std::function<bool(uint64_t)> over);

 private:
  void send(uint32_t seed);
  void note_token(double now, double sent, double last);
  /// Whether the client goes on.
  bool note_end(bool answered);

  const int64_t vocab_, answer_;
  std::function<bool(uint64_t)> over_;  // set while nothing runs
  Mutex mutex_;
  CondVar ended_;
  Seen seen_ GUARDED_BY(mutex_);
  int running_ GUARDED_BY(mutex_) = 0;
  client::AsyncClient client_;  // first to go: its thread calls the above
};

}  // namespace chimera::bench
