// latency: what one client on an idle daemon sees.
//
//   ready          process start to the first answered health call, ms
//   health         round trip over ipc, us
//   first token    20-token prompt, request sent to first token received, ms (fresh prompt each
//                  time, so the prefix cache does not help)
//   decode         tokens/s of one stream of 128 tokens after a 20-token prompt
//   16 streams     of all of them together, while none has ended
//   engine alone   the same in this process without a daemon (rates/engine.h), by turns with it;
//                  the ratio is that of the daemon to the engine
//
// With --curve, instead (latency_curve.cc): what keys cost, and silent peers.
#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <limits>
#include <thread>

#include "bench.h"
#include "latency_curve.h"
#include "options.h"
#include "rates/engine.h"
#include "session.h"
#include "stats.h"

namespace chimera::bench {
namespace {

constexpr int kStarts = 5;
constexpr int kRequests = 30;
constexpr int kHealthCalls = 500;
constexpr double kReadySeconds = 60.0;
constexpr int64_t kPrompt = 20, kAnswer = 128;
constexpr int kStreams = 16;
constexpr int kTurns = 7;

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
    const auto done = session.client().generate(
        greedy_request(prompt_of(kPrompt, vocab, i), kAnswer), [&](const client::Token&) {
          if (first == 0.0) first = now_s();
        });
    if (!done.ok()) fail(done.error());
    first_ms.push_back(1e3 * (first - start));
    rate.push_back(static_cast<double>(kAnswer - 1) / (now_s() - first));
  }
}

/// Tokens per second of `streams` clients at once, from the first token of the last one to the last
/// token of the first one.
double daemon_rate(const DaemonProcess& daemon, int streams, int64_t vocab, uint32_t seed) {
  std::vector<std::vector<double>> times(static_cast<size_t>(streams));
  std::vector<std::string> failures(times.size());
  std::vector<std::jthread> clients;
  for (size_t i = 0; i < times.size(); ++i) {
    clients.emplace_back([&, i] {
      try {
        Session session(daemon);
        const auto prompt = prompt_of(kPrompt, vocab, seed + static_cast<uint32_t>(i));
        const auto done =
            session.client().generate(greedy_request(prompt, kAnswer),
                                      [&](const client::Token&) { times[i].push_back(now_s()); });
        if (!done.ok()) failures[i] = done.error().message;
      } catch (const std::exception& error) {
        failures[i] = error.what();
      }
    });
  }
  clients.clear();  // joins
  double begin = 0, end = std::numeric_limits<double>::infinity();
  for (size_t i = 0; i < times.size(); ++i) {
    if (!failures[i].empty() || times[i].empty()) throw std::runtime_error(failures[i]);
    begin = std::max(begin, times[i].front());
    end = std::min(end, times[i].back());
  }
  int64_t tokens = 0;
  for (const std::vector<double>& stream : times)
    tokens += std::count_if(stream.begin(), stream.end(),
                            [&](double at) { return at > begin && at <= end; });
  if (!(end > begin)) throw std::runtime_error("the streams did not run together");
  return static_cast<double>(tokens) / (end - begin);
}

void compare_with_engine(const DaemonProcess& daemon, const DeploymentOptions& options,
                         int64_t vocab) {
  const auto precision = kPrecisionNames.find(options.precision);
  if (!precision) return;
  EngineOnly engine(options.backbone, *precision, options.threads);
  for (const int streams : {1, kStreams}) {
    std::vector<double> served, alone, ratio;
    for (uint32_t turn = 0; turn < kTurns; ++turn) {
      served.push_back(daemon_rate(daemon, streams, vocab, 1000 * (turn + 1)));
      EngineOnly::Streams run(engine, streams, kPrompt + kAnswer);
      run.prefill(kPrompt, 512);
      const double seconds = run.decode(kAnswer - 1).seconds;
      alone.push_back(static_cast<double>(streams * (kAnswer - 1)) / seconds);
      ratio.push_back(served.back() / alone.back());
    }
    row(streams == 1 ? "1 stream" : "16 streams", "tokens/s", served);
    row("engine alone", "tokens/s", alone);
    row("ratio", "", ratio);
  }
}

}  // namespace

int run_latency(const std::vector<std::string>& args) {
  DeploymentOptions options;
  bool curve = false;
  auto known = daemon_options(options);
  known.add_options()("curve", boost::program_options::bool_switch(&curve),
                      "tokens/s over tcp with keys vs ipc; beside silent peers");
  if (const auto exit = parse(known, args)) return *exit;
  try {
    if (curve) return measure_curve(options), 0;
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
    if (options.modules.empty()) compare_with_engine(daemon, options, session.vocab());
  } catch (const std::exception& error) {
    fmt::print(stderr, "chimera-bench: latency: {}\n", error.what());
    return 1;
  }
  return 0;
}

}  // namespace chimera::bench
