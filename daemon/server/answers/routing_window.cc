#include "daemon/server/answers/routing_window.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <algorithm>
#include <ctime>

namespace chimera {
namespace {

std::string utc_text() {
  return fmt::format("{:%Y-%m-%dT%H:%M:%SZ}", fmt::gmtime(std::time(nullptr)));
}

// Counters of a module begin anew when another one takes its name.
template <class T>
T grown(T now, T before) {
  return now < before ? now : now - before;
}

RouterStats::Layer difference(const RouterStats::Layer& now, const RouterStats::Layer& before) {
  RouterStats::Layer out = now;
  out.tokens = grown(now.tokens, before.tokens);
  out.entropy_sum = grown(now.entropy_sum, before.entropy_sum);
  for (auto& [module, mass] : out.mass) {
    const auto old = before.mass.find(module);
    if (old != before.mass.end()) mass = grown(mass, old->second);
  }
  for (auto& [module, counts] : out.expert_tokens) {
    const auto old = before.expert_tokens.find(module);
    if (old == before.expert_tokens.end()) continue;
    for (size_t i = 0; i < std::min(counts.size(), old->second.size()); ++i) {
      counts[i] = grown(counts[i], old->second[i]);
    }
  }
  return out;
}

}  // namespace

RoutingWindow::RoutingWindow() : since_(utc_text()) {}

RouterStats RoutingWindow::since_reset(const RouterStats& total) const {
  RouterStats out = total;
  for (size_t i = 0; i < std::min(out.layers.size(), before_.layers.size()); ++i) {
    out.layers[i] = difference(total.layers[i], before_.layers[i]);
  }
  return out;
}

void RoutingWindow::reset(const RouterStats& total) {
  before_ = total;
  since_ = utc_text();
}

}  // namespace chimera
