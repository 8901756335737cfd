// capacity --lasting: whether a daemon stays as it is. --clients clients send --requests short
// requests, as fast as they are answered and none like another; what the daemon has in memory is
// looked at all the while. 24 hours of one request every 86 ms are a million of them.
#include <fmt/format.h>

#include <algorithm>
#include <stdexcept>
#include <vector>

#include "capacity/capacity.h"
#include "capacity/crowd.h"
#include "session.h"
#include "stats.h"

namespace chimera::bench {
namespace {

// What the project promises, from the time on when caches and heaps are full.
constexpr double kMostGrowth = 1.01;

constexpr int64_t kFewTokens = 2;
constexpr uint64_t kLooks = 20;  // at the memory; the first tenth fills the caches
constexpr size_t kWarm = kLooks / 10;
constexpr int64_t kContext = 64;  // the prefix cache of 16 sequences of it is soon full

}  // namespace

CapacityResult measure_lasting(const CapacityOptions& o) {
  DeploymentOptions deployment = o.deployment;
  deployment.max_context = kContext;
  deployment.max_queue = std::max(deployment.max_queue, o.clients);
  const DaemonProcess daemon(deployment);
  Session session(daemon);
  session.wait_ready(60.0);
  const auto all = static_cast<uint64_t>(std::max<int64_t>(o.requests, kLooks));
  std::vector<double> rss;  // when so many twentieths were answered
  Crowd crowd(daemon, session.vocab(), kFewTokens);
  const double begin = now_s();
  const Crowd::Seen seen = crowd.run(o.clients, [&](uint64_t answers) {
    if (answers * kLooks / all > rss.size()) rss.push_back(rss_of(daemon));
    return answers >= all;
  });
  const double seconds = now_s() - begin;
  if (rss.size() < kLooks)
    throw std::runtime_error(
        fmt::format("found {} answers (expected {}), {} failed", seen.answers, all, seen.failed));
  const double first = *std::max_element(rss.begin(), rss.begin() + kWarm);
  const double last = *std::max_element(rss.end() - kWarm, rss.end());

  constexpr double kMiB = 1 << 20;
  CapacityResult result;
  result.figures = {{"requests", seen.answers},
                    {"failed", seen.failed},
                    {"seconds", seconds},
                    {"rss_bytes", rss},
                    {"growth", last / first}};
  result.lines = {
      fmt::format("{} requests in {:.0f} s, {} failed", seen.answers, seconds, seen.failed),
      fmt::format("resident memory {:.2f} MiB after the first tenth, {:.2f} MiB in the "
                  "last, {:.4f} times",
                  first / kMiB, last / kMiB, last / first)};
  result.within = seen.failed == 0 && last / first <= kMostGrowth;
  return result;
}

}  // namespace chimera::bench
