// isolation: what does it cost to run a library module in a process of its own?
//
//   floor       round trip of four bytes between two processes over shared memory: busy on both
//               sides, by futex, by eventfd; us. What no design can go below on this machine now
//   call        one forward of the module, in-process and isolated by turns in the same run; us.
//               "paced" leaves 100 us between calls, as the other work of a decode step does
//   sins        --sinner: a plugin that misbehaves; ms until its call is answered and until its
//               next one succeeds
//   throughput  --in-process-module: tokens/s of the demo with 16 streams, by turns
#include <fmt/format.h>

#include <algorithm>
#include <exception>
#include <filesystem>
#include <fstream>
#include <random>
#include <stdexcept>
#include <thread>

#include "backbone/backbone.h"
#include "backbone/checkpoint/fingerprint.h"
#include "base/threads/mutex.h"
#include "bench.h"
#include "experts/isolation/backend.h"
#include "experts/kinds/library_module.h"
#include "isolation.h"
#include "options.h"
#include "session.h"
#include "stats.h"

namespace chimera::bench {
namespace {

constexpr int kTurns = 12;  // of both kinds, by turns
constexpr int kCallsPerRound = 300;
constexpr double kPaceSeconds = 100e-6;

template <class T>
T must(Result<T> result) {
  if (!result.ok()) throw std::runtime_error(result.status().to_string());
  return std::move(*result);
}

std::shared_ptr<LibraryRuntime> make_runtime(int threads) {
  LibraryRuntime::Options options;
  options.worker_count = static_cast<uint32_t>(threads);
  return std::make_shared<LibraryRuntime>(std::move(options));
}

struct Caller {
  explicit Caller(int threads, int64_t width) : hidden(width), pool(threads) {}

  double call_us(LibraryBackend& backend, int64_t layer, int64_t rows) {
    const double start = now_s();
    const Status status = backend.forward(layer, 0, x.data(), rows, y.data(), context);
    const double us = 1e6 * (now_s() - start);
    if (!status.ok()) throw std::runtime_error(status.to_string());
    return us;
  }
  void prepare(int64_t rows) {
    std::mt19937 rng(1);
    std::normal_distribution<float> normal;
    x.resize(static_cast<size_t>(rows * hidden));
    y.resize(x.size());
    for (float& v : x) v = normal(rng);
  }

  const int64_t hidden;
  ThreadPool pool;
  FloatBuffer scratch;
  std::vector<float> x, y;
  ExpertContext context{best_kernels(), pool, scratch};
};

void wait_busily(double seconds) {
  for (const double end = now_s() + seconds; now_s() < end;) {
  }
}

/// One line of the table: medians of both kinds over all rounds, and of their difference per round.
void compare(Caller& caller, LibraryBackend& inside, LibraryBackend& isolated, int64_t layer,
             int64_t rows, bool paced) {
  caller.prepare(rows);
  std::vector<double> all[2], extra;
  for (int round = 0; round < kTurns; ++round) {
    double median[2];
    for (int kind = 0; kind < 2; ++kind) {
      std::vector<double> us;
      for (int i = 0; i < kCallsPerRound; ++i) {
        if (paced) wait_busily(kPaceSeconds);
        us.push_back(caller.call_us(kind == 0 ? inside : isolated, layer, rows));
      }
      all[kind].insert(all[kind].end(), us.begin(), us.end());
      median[kind] = quantile(us, 0.5);
    }
    extra.push_back(median[1] - median[0]);
  }
  const Spread s = spread(extra);
  fmt::print("{:>6} {:<8}{:>11.1f}{:>11.1f}{:>11.1f}{:>11.1f}{:>11.1f}{:>11.1f}{:>11.1f}\n", rows,
             paced ? "paced" : "", quantile(all[0], 0.5), quantile(all[0], 0.99),
             quantile(all[1], 0.5), quantile(all[1], 0.99), s.median, s.min, s.max);
}

void calls(const IsolationOptions& o) {
  const Checkpoint checkpoint = must(Checkpoint::open(o.backbone, Residency::kMapped));
  const ModelConfig config = must(parse_model_config(checkpoint.config_json(), o.backbone));
  const std::string fingerprint = must(backbone_fingerprint(checkpoint, ""));
  const auto open = [&](bool isolated) {
    LibraryPackage package = must(open_library_package(o.module, config, fingerprint));
    package.source.spec.deadline_ms = 60'000;  // figures, also from a machine that is too busy
    return must(isolated ? open_isolated(package.source, make_runtime(o.threads))
                         : open_in_process(package.source, make_runtime(o.threads)));
  };
  const auto inside = open(false);
  const auto isolated = open(true);
  fmt::print("\ncall ({}, {} threads)\nsandbox: {}\n", isolated->info().id, o.threads,
             isolated->status().sandbox);
  fmt::print("{:>6} {:<8}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}{:>11}\n", "rows", "", "inside us",
             "p99", "isolated us", "p99", "extra us", "min", "max");
  Caller caller(o.threads, config.hidden_size);
  for (const int64_t rows : {1, 4, 16, 64, 256}) {
    compare(caller, *inside, *isolated, 0, rows, false);
    if (rows <= 16) compare(caller, *inside, *isolated, 0, rows, true);
  }
}

/// Tokens per second of `streams` clients, each sending `requests` requests of 64 tokens.
double tokens_per_second(const DaemonProcess& daemon, int streams, int requests, int64_t vocab) {
  std::vector<std::thread> threads;
  std::string error;
  Mutex mutex;
  const double start = now_s();
  for (int c = 0; c < streams; ++c) {
    threads.emplace_back([&, c] {
      try {
        Session session(daemon);
        for (int r = 0; r < requests; ++r) {
          const auto done = session.client().generate(
              greedy_request(prompt_of(8, vocab, static_cast<uint32_t>(100 * c + r)), 64),
              [](const client::Token&) {});
          if (!done.ok()) fail(done.error());
        }
      } catch (const std::exception& e) {
        const MutexLock lock(mutex);
        error = e.what();
      }
    });
  }
  for (std::thread& t : threads) t.join();
  if (!error.empty()) throw std::runtime_error(error);
  return 64.0 * streams * requests / (now_s() - start);
}

void throughput(const IsolationOptions& o) {
  constexpr int kStreams = 16, kRequests = 3, kPairs = 30;
  DeploymentOptions deployment;
  deployment.backbone = o.backbone;
  deployment.threads = o.threads;
  deployment.top_k = 2;
  deployment.modules = {o.in_process_module};
  const DaemonProcess inside(deployment);
  deployment.modules = {o.module};
  const DaemonProcess isolated(deployment);
  Session a(inside), b(isolated);
  a.wait_ready(120.0);
  b.wait_ready(120.0);
  const int64_t vocab = a.vocab();
  std::vector<double> rate[2], loss;
  for (int pair = -1; pair < kPairs; ++pair) {  // the first warms up
    // Each goes first in every second pair, so that a trend of the machine favours neither.
    double in = 0, out = 0;
    for (const bool first : {true, false}) {
      const bool in_process = first == (pair % 2 == 0);
      (in_process ? in : out) =
          tokens_per_second(in_process ? inside : isolated, kStreams, kRequests, vocab);
    }
    if (pair < 0) continue;
    rate[0].push_back(in);
    rate[1].push_back(out);
    loss.push_back(100.0 * (1.0 - out / in));
  }
  fmt::print("\nthroughput ({} streams, top_k 2, {} threads), {} pairs\n", kStreams, o.threads,
             kPairs);
  fmt::print("{:<12}{:>10}{:>10}{:>10}\n", "tokens/s", "min", "median", "max");
  for (int i = 0; i < 2; ++i) {
    const Spread s = spread(rate[i]);
    fmt::print("{:<12}{:>10.0f}{:>10.0f}{:>10.0f}\n", i == 0 ? "in-process" : "process", s.min,
               s.median, s.max);
  }
  const Spread s = spread(loss);
  fmt::print("{:<12}{:>10.1f}{:>10.1f}{:>10.1f}\n", "loss %", s.min, s.median, s.max);
  // Of 30 draws the 10th and the 21st enclose the median with 95 % (binomial, whatever their
  // distribution).
  static_assert(kPairs == 30);
  std::sort(loss.begin(), loss.end());
  fmt::print("{:<12}{:>10.1f} to {:.1f}\n", "median, 95 %", loss[9], loss[20]);
}

}  // namespace

int run_isolation(const std::vector<std::string>& args) {
  namespace po = boost::program_options;
  IsolationOptions o;
  po::options_description d("Options");
  d.add_options()("help,h", "this text");
  d.add_options()("backbone", po::value(&o.backbone)->required(), "checkpoint directory");
  d.add_options()("module", po::value(&o.module)->required(),
                  "library module, e.g. build/modules/finance");
  d.add_options()("in-process-module", po::value(&o.in_process_module),
                  "the same with isolation: in-process; for the throughput");
  d.add_options()("sinner", po::value(&o.sinner), "build/plugins/runtime_sinner.so; for the sins");
  d.add_options()("parts", po::value(&o.parts)->multitoken(),
                  "only these of floor, call, sins, throughput");
  d.add_options()("threads", po::value(&o.threads)->default_value(auto_threads()),
                  "compute threads");
  if (const auto exit = parse(d, args)) return *exit;
  for (const std::string& part : o.parts) {
    if (part == "floor" || part == "call" || part == "sins" || part == "throughput") continue;
    fmt::print(stderr,
               "chimera-bench: isolation: --parts: found {} (expected floor, call, sins or "
               "throughput)\n",
               part);
    return 1;
  }
  try {
    print_load();
    if (o.wants("floor")) floors();
    if (o.wants("call")) calls(o);
    if (o.wants("sins") && !o.sinner.empty()) sins(o.sinner);
    if (o.wants("throughput") && !o.in_process_module.empty()) throughput(o);
    print_load();
  } catch (const std::exception& error) {
    fmt::print(stderr, "chimera-bench: isolation: {}\n", error.what());
    return 1;
  }
  return 0;
}

}  // namespace chimera::bench
