// TokenBudget: how many tokens each client may still take (token bucket, ITU-T I.371: the rate of a
// client fills its bucket up to a minute's worth, what it takes empties it).
//
// A request takes what it may need when it comes, and gives back at its end what it did not. It may
// come while the bucket of its client holds anything, so a bucket may go below nothing, by one
// request; that is paid back first.
//
// Thread safety: all methods may be called from any thread.
#pragma once

#include <chrono>
#include <cstdint>
#include <map>
#include <string>

#include "base/status.h"
#include "base/threads/mutex.h"
#include "daemon/security/principal.h"

namespace chimera {

class TokenBudget {
 public:
  using Clock = std::chrono::steady_clock;

  /// resource_exhausted, with when to try again, when nothing is left.
  Status take(const Principal& client, int64_t tokens, Clock::time_point now = Clock::now());
  void give_back(const Principal& client, int64_t tokens);

 private:
  struct Bucket {
    double tokens = 0.0;
    Clock::time_point filled;
  };

  Mutex mutex_;
  std::map<std::string, Bucket> buckets_ GUARDED_BY(mutex_);  // by name of the client
};

}  // namespace chimera
