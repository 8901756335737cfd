// decode, prefill, batch: tokens per second of the engine without a daemon, beside what the machine
// gives in the same moment.
//
// * decode: one sequence. Limit: the rate at which memory is read; a step reads every active weight
//   once (attention, head, gates, the chosen experts), and nothing else that counts.
// * batch: the same with many sequences, in total; a step reads the experts that any of them chose.
// * prefill: a prompt. Limit: the rate of matrix products whose weights lie in the caches.
//
// A round measures the limit, then the engine; fractions are of the limit of their own round.
#include "rates/rates.h"

#include <fmt/format.h>

#include <exception>
#include <functional>

#include "bench.h"
#include "rates/engine.h"
#include "rates/limits.h"
#include "rates/report.h"

namespace chimera::bench {
namespace {

Report begin(const std::string& workload, const RateOptions& o, EngineOnly& engine) {
  Report report(workload, engine.pool().threads());
  report.set("backbone", o.backbone);
  report.set("precision", o.precision.name());
  report.set("experts", engine.widened().empty() ? std::string(info_of(engine.expert_format()).name)
                                                 : engine.widened() + ", widened at each use");
  return report;
}

void measure_decode(const RateOptions& o, const std::string& workload) {
  EngineOnly engine(o.backbone, o.precision, o.threads);
  Limits limits(engine.pool());
  const int64_t rounds = o.rounds + 1;  // the first warms up
  EngineOnly::Streams streams(engine, o.streams, o.context + rounds * o.tokens);
  if (o.context > 0) streams.prefill(o.context, 512);
  (void)streams.decode(o.tokens);
  (void)limits.read_gbs();
  Report report = begin(workload, o, engine);
  if (o.streams > 1) report.set("streams", o.streams);
  report.set("context", o.context);
  Figure rate{o.streams > 1 ? "tokens of all" : "tokens", "tokens/s", {}, "", "", {}, {}};
  Figure read{"weights read", "GB/s", {}, "memory read", "GB/s", {}, {}};
  Figure size{"weights of a step", "MB", {}, "", "", {}, {}};
  for (int r = 0; r < o.rounds; ++r) {
    const double limit = limits.read_gbs();
    const EngineOnly::Streams::Decoded decoded = streams.decode(o.tokens);
    const double gbs = decoded.bytes / decoded.seconds / 1e9;
    rate.samples.push_back(static_cast<double>(o.streams * o.tokens) / decoded.seconds);
    read.samples.push_back(gbs);
    read.limits.push_back(limit);
    read.fractions.push_back(gbs / limit);
    size.samples.push_back(decoded.bytes / static_cast<double>(o.tokens) / 1e6);
  }
  report.add(std::move(rate));
  report.add(std::move(read));
  report.add(std::move(size));
  report.print(o.json);
}

void measure_prefill(const RateOptions& o) {
  EngineOnly engine(o.backbone, o.precision, o.threads);
  Limits limits(engine.pool());
  Report report = begin("prefill", o, engine);
  report.set("tokens", o.tokens);
  report.set("chunk", o.chunk);
  const double flop =
      2.0 * (static_cast<double>(o.tokens) * engine.token_products() + engine.head_products());
  const auto once = [&] {
    return EngineOnly::Streams(engine, 1, o.tokens).prefill(o.tokens, o.chunk);
  };
  (void)once();  // warms up
  Figure rate{"tokens", "tokens/s", {}, "", "", {}, {}};
  Figure work{"products", "GFLOP/s", {}, "products in cache", "GFLOP/s", {}, {}};
  for (int r = 0; r < o.rounds; ++r) {
    const double limit = limits.product_gflops(engine.expert_format());
    const double seconds = once();
    rate.samples.push_back(static_cast<double>(o.tokens) / seconds);
    work.samples.push_back(flop / seconds / 1e9);
    work.limits.push_back(limit);
    work.fractions.push_back(work.samples.back() / limit);
  }
  report.add(std::move(rate));
  report.add(std::move(work));
  report.print(o.json);
}

int run_rates(const std::vector<std::string>& args, Takes takes, const std::string& workload,
              const std::function<void(const RateOptions&)>& measure) {
  RateOptions o;
  if (const auto exit = parse_rates(args, takes, &o)) return *exit;
  try {
    measure(o);
  } catch (const std::exception& error) {
    fmt::print(stderr, "chimera-bench: {}: {}\n", workload, error.what());
    return 1;
  }
  return 0;
}

}  // namespace

int run_decode(const std::vector<std::string>& args) {
  return run_rates(args, Takes::kDecode, "decode",
                   [](const RateOptions& o) { measure_decode(o, "decode"); });
}

int run_batch(const std::vector<std::string>& args) {
  return run_rates(args, Takes::kBatch, "batch",
                   [](const RateOptions& o) { measure_decode(o, "batch"); });
}

int run_prefill(const std::vector<std::string>& args) {
  return run_rates(args, Takes::kPrefill, "prefill", measure_prefill);
}

}  // namespace chimera::bench
