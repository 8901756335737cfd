// Accounts: whose request is admitted next.
//
// Fair queueing by virtual token counters (Sheng et al., "Fairness in Serving Large Language
// Models", OSDI 2024, arXiv 2401.00588): every account has a counter of the tokens it was served,
// and the waiting account with the smallest one is next. Who comes back after a pause starts where
// the least served of the others is, so that nothing is saved up. A request is charged with what it
// may take when it begins; what it did not take is given back at its end.
//
// Thread safety: none; guarded by its queue.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <string>

#include "daemon/engine/sequence/request.h"

namespace chimera {

class Accounts {
 public:
  /// One account. Stays where it is as long as the accounts: there are as many as clients that ever
  /// asked for something.
  struct State {
    int64_t waiting = 0, running = 0;
    double served = 0.0;   // tokens, and those that nobody competed for
    double prepaid = 0.0;  // of them, those of requests that run: part of it is given back
    std::shared_ptr<OutputGauge> output;
    uint64_t looked_at = 0;  // scratch of the queue
    bool active() const { return waiting + running > 0; }
  };

  /// An account with more than `max_output` bytes of answers that nobody read yet waits. `freed` is
  /// called from any thread when some of them are gone.
  Accounts(uint64_t max_output, std::function<void()> freed);
  ~Accounts();
  Accounts(const Accounts&) = delete;
  Accounts& operator=(const Accounts&) = delete;

  State& of(const EngineRequest& request);
  /// resource_exhausted when the account has as many waiting as it may have.
  static Status check(const State& state, const EngineRequest& request);
  /// Whether the account may start this request now.
  bool may_start(const State& state, const EngineRequest& request) const;

  void waits(State& state);
  void leaves(State& state);  // without having started
  /// From waiting to running.
  void starts(State& state, EngineRequest& request);
  /// `expected` as it was charged, `taken` as it came.
  void ends(State& state, int64_t expected, int64_t taken);

  /// The account with the most waiting, if it has over one more than `state`; else null.
  State* heavier_than(const State& state);

 private:
  void idle(const State& state);

  const uint64_t max_output_;
  const std::function<void()> freed_;
  std::map<std::string, State> states_;
  double last_served_ = 0.0;  // of the account that left when no other was active
};

}  // namespace chimera
