// capacity --crowds: many clients at once. 16, 64, 256 and 1,000 of them (up to --most) each send
// one request after another, as fast as they are answered; the daemon runs at most kMostSequences
// of them together and lets the others wait. The connections are those that the asynchronous client
// opens for so many requests.
#include <fmt/format.h>

#include <filesystem>
#include <string>

#include "capacity/capacity.h"
#include "capacity/crowd.h"
#include "session.h"
#include "stats.h"

namespace chimera::bench {
namespace {

constexpr int kCrowds[] = {16, 64, 256, 1000};
constexpr int kMostSequences = 256;
constexpr int64_t kAnswer = 32;

int64_t entries_of(const DaemonProcess& daemon, const char* what) {
  const std::filesystem::directory_iterator all(fmt::format("/proc/{}/{}", daemon.pid(), what));
  return std::distance(begin(all), end(all));
}

}  // namespace

CapacityResult measure_crowds(const CapacityOptions& o) {
  DeploymentOptions deployment = o.deployment;
  deployment.max_sequences = kMostSequences;
  deployment.max_queue = kCrowds[std::size(kCrowds) - 1];
  deployment.max_context = 256;
  const DaemonProcess daemon(deployment);
  Session session(daemon);
  session.wait_ready(60.0);
  CapacityResult result;
  result.figures = Json::array();
  for (const int clients : kCrowds) {
    if (clients > o.most) continue;
    Crowd crowd(daemon, session.vocab(), kAnswer);
    const double begin = now_s();
    const Crowd::Seen seen =
        crowd.run(clients, [&](uint64_t) { return now_s() >= begin + o.seconds; });
    const double rate = static_cast<double>(seen.tokens) / (now_s() - begin);
    const double pss = pss_of(daemon) / (1 << 20);
    const int64_t threads = entries_of(daemon, "task"), descriptors = entries_of(daemon, "fd");
    const auto q = [](const std::vector<double>& ms, double at) { return quantile(ms, at); };
    result.figures.push_back(
        {{"clients", clients},
         {"tokens_per_s", rate},
         {"first_ms", {{"p50", q(seen.first_ms, 0.5)}, {"p99", q(seen.first_ms, 0.99)}}},
         {"gap_ms", {{"p50", q(seen.gap_ms, 0.5)}, {"p99", q(seen.gap_ms, 0.99)}}},
         {"answers", seen.answers},
         {"failed", seen.failed},
         {"pss_mib", pss},
         {"threads", threads},
         {"descriptors", descriptors}});
    result.lines.push_back(fmt::format(
        "{:4} clients: {:.0f} tokens/s; first token {:.0f} ms (p99 {:.0f}), then every {:.1f} ms "
        "(p99 {:.1f}); {} failed; {:.0f} MiB (PSS), {} threads, {} descriptors",
        clients, rate, q(seen.first_ms, 0.5), q(seen.first_ms, 0.99), q(seen.gap_ms, 0.5),
        q(seen.gap_ms, 0.99), seen.failed, pss, threads, descriptors));
    result.within = result.within && seen.failed == 0;
  }
  return result;
}

}  // namespace chimera::bench
