#include "daemon/engine/scheduling/accounts.h"

#include <fmt/format.h>

#include <algorithm>
#include <optional>

namespace chimera {

Accounts::Accounts(uint64_t max_output, std::function<void()> freed)
    : max_output_(max_output), freed_(std::move(freed)) {}

Accounts::~Accounts() {
  for (auto& [name, state] : states_) state.output->disconnect();
}

Accounts::State& Accounts::of(const EngineRequest& request) {
  State& state = states_[request.account == nullptr ? std::string() : request.account->name];
  if (state.output == nullptr) state.output = std::make_shared<OutputGauge>(freed_);
  return state;
}

Status Accounts::check(const State& state, const EngineRequest& request) {
  if (request.account == nullptr || !request.account->queued) return {};
  const Account& account = *request.account;
  // What may run at once does not count as waiting, even if the engine has not come to it yet.
  const int64_t waits =
      account.in_flight ? state.waiting + state.running - *account.in_flight : state.waiting;
  if (waits < *account.queued) return {};
  return {Code::kResourceExhausted,
          fmt::format("client {}: {} of its requests wait (expected at most {}, limits.queued)",
                      account.name, waits, *account.queued),
          "wait for one of them to end"};
}

bool Accounts::may_start(const State& state, const EngineRequest& request) const {
  const AccountPtr& account = request.account;
  if (account != nullptr && account->in_flight && state.running >= *account->in_flight) {
    return false;
  }
  if (request.output_bytes == 0) return true;
  const uint64_t held = state.output->held();
  return held == 0 || held + request.output_bytes <= max_output_;
}

void Accounts::waits(State& state) {
  if (!state.active()) {
    std::optional<double> least;
    for (const auto& [name, other] : states_) {
      if (!other.active()) continue;
      const double level = other.served - other.prepaid;
      least = std::min(least.value_or(level), level);
    }
    state.served = std::max(state.served, least.value_or(last_served_));
  }
  ++state.waiting;
}

void Accounts::leaves(State& state) {
  --state.waiting;
  idle(state);
}

void Accounts::starts(State& state, EngineRequest& request) {
  --state.waiting;
  ++state.running;
  state.served += static_cast<double>(request.expected_tokens);
  state.prepaid += static_cast<double>(request.expected_tokens);
  if (request.output_bytes > 0) {
    request.output = std::make_shared<const OutputHold>(state.output, request.output_bytes);
  }
}

void Accounts::ends(State& state, int64_t expected, int64_t taken) {
  --state.running;
  state.served -= static_cast<double>(expected - taken);
  state.prepaid -= static_cast<double>(expected);
  idle(state);
}

void Accounts::idle(const State& state) {
  const bool any = std::any_of(states_.begin(), states_.end(),
                               [](const auto& entry) { return entry.second.active(); });
  if (!any) last_served_ = state.served;
}

Accounts::State* Accounts::heavier_than(const State& state) {
  const auto most = std::max_element(
      states_.begin(), states_.end(),
      [](const auto& x, const auto& y) { return x.second.waiting < y.second.waiting; });
  if (most == states_.end() || most->second.waiting <= state.waiting + 1) return nullptr;
  return &most->second;
}

}  // namespace chimera
