// latency: what one client on an idle daemon sees.
//
//   ready          process start to the first answered health call, ms
//   health         round trip over ipc, us
//   first token    20-token prompt, request sent to first token received, ms (fresh prompt each
//                  time, so the prefix cache does not help)
//   decode         tokens/s of one stream of 128 tokens after a 20-token prompt, and the weight
//                  bytes it reads per second are left to `kernels`
#include <fmt/format.h>

#include <exception>

#include "bench.h"
#include "options.h"
#include "session.h"
#include "stats.h"

namespace chimera::bench {
namespace {

constexpr int kStarts = 5;
constexpr int kRequests = 30;
constexpr int kHealthCalls = 500;
constexpr double kReadySeconds = 60.0;

void row(const char* name, const char* unit, const std::vector<double>& samples) {
  const Spread s = spread(samples);
  fmt::print("{:<14}{:>10.2f}{:>10.2f}{:>10.2f}{:>10.2f}  {}\n", name, s.min, s.median,
             quantile(samples, 0.99), s.max, unit);
}

std::vector<double> measure_starts(const DeploymentOptions& options) {
  std::vector<double> ms;
  for (int i = 0; i < kStarts; ++i) {
    const DaemonProcess daemon(options);
    Session session(daemon);
    ms.push_back(1e3 * (session.wait_ready(kReadySeconds) - daemon.started_at()));
  }
  return ms;
}

std::vector<double> measure_health(Session& session) {
  std::vector<double> us;
  for (int i = 0; i < kHealthCalls; ++i) {
    const double start = now_s();
    (void)session.call(wire::Health{});
    us.push_back(1e6 * (now_s() - start));
  }
  return us;
}

void measure_streams(Session& session, std::vector<double>& first_ms, std::vector<double>& rate) {
  const int64_t vocab = session.vocab();
  for (uint32_t i = 0; i < kRequests; ++i) {
    const double start = now_s();
    double first = 0.0;
    const auto done = session.client().generate(greedy_request(prompt_of(20, vocab, i), 128),
                                                [&](const client::Token&) {
                                                  if (first == 0.0) first = now_s();
                                                });
    if (!done.ok()) fail(done.error());
    first_ms.push_back(1e3 * (first - start));
    rate.push_back(127.0 / (now_s() - first));
  }
}

}  // namespace

int run_latency(const std::vector<std::string>& args) {
  DeploymentOptions options;
  if (const auto exit = parse(daemon_options(options), args)) return *exit;
  try {
    fmt::print("{:<14}{:>10}{:>10}{:>10}{:>10}\n", "", "min", "median", "p99", "max");
    row("ready", "ms", measure_starts(options));
    const DaemonProcess daemon(options);
    Session session(daemon);
    session.wait_ready(kReadySeconds);
    row("health", "us", measure_health(session));
    std::vector<double> first_ms, rate;
    measure_streams(session, first_ms, rate);
    row("first token", "ms", first_ms);
    row("decode", "tokens/s", rate);
  } catch (const std::exception& error) {
    fmt::print(stderr, "chimera-bench: latency: {}\n", error.what());
    return 1;
  }
  return 0;
}

}  // namespace chimera::bench
