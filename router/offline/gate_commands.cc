#include "router/offline/gate_commands.h"

#include <fmt/format.h>
#include <unistd.h>

#include <boost/program_options.hpp>
#include <cmath>
#include <cstdio>

#include "base/json/writer.h"
#include "base/threads/thread_pool.h"
#include "router/fitting/fit_module.h"
#include "router/offline/module_commands.h"

namespace chimera {
namespace {

namespace po = boost::program_options;
using Words = std::vector<std::string>;

constexpr int kMostRounds = 20;
constexpr double kMostPrior = 50;

/// "1.234 -> 0.987 bits per byte, share 3.0 % -> 71.2 % (backbone alone 1.300)"
std::string line_of(const Json& found) {
  const auto number = [&](const char* way, const char* what) {
    return found[way].value(what, 0.0);
  };
  return fmt::format(
      "{:.4f} -> {:.4f} bits per byte, share {:.1f} % -> {:.1f} %; backbone alone {:.4f}",
      number("before", "bits_per_byte"), number("after", "bits_per_byte"),
      100 * number("before", "share"), 100 * number("after", "share"),
      number("backbone", "bits_per_byte"));
}

void show(const Json& report, bool json) {
  if (json) {
    fmt::print("{}\n", write_json(report));
    return;
  }
  fmt::print("module   {}\nwindows  {} of the text, {} against it; every fifth was left out\n",
             report.value("module", ""), report.value("windows", 0),
             report.value("windows_against", 0));
  for (const char* kind : {"text", "against"}) {
    if (report.contains(kind)) fmt::print("{:<8} {}\n", kind, line_of(report[kind]));
  }
}

}  // namespace

Status run_fit_gate(const Words& words, bool json) {
  FitGateOptions fit;
  std::string precision;
  int threads = 0;
  po::options_description options;
  auto add = options.add_options();
  add("args", po::value<Words>()->default_value({}, ""));
  add("backbone", po::value(&fit.backbone_dir));
  add("text", po::value(&fit.text)->multitoken());
  add("against", po::value(&fit.against)->multitoken());
  add("out", po::value(&fit.out_dir));
  add("limit-bytes", po::value(&fit.limit_bytes)->default_value(fit.limit_bytes));
  add("prior", po::value(&fit.prior)->default_value(fit.prior));
  add("rounds", po::value(&fit.rounds)->default_value(fit.rounds));
  add("precision", po::value(&precision)->default_value("f32"));
  add("threads", po::value(&threads));
  po::positional_options_description positional;
  positional.add("args", -1);
  po::variables_map values;
  po::store(po::command_line_parser(words).options(options).positional(positional).run(), values);
  po::notify(values);
  const auto& args = values["args"].as<Words>();
  if (args.size() != 1) {
    throw ModuleUsage{fmt::format("found {} arguments (expected MODULE)", args.size())};
  }
  if (fit.backbone_dir.empty()) throw ModuleUsage{"--backbone: found none (expected DIR)"};
  if (fit.out_dir.empty()) throw ModuleUsage{"--out: found none (expected DIR)"};
  if (fit.text.empty()) throw ModuleUsage{"--text: found none (expected FILE...)"};
  if (fit.rounds < 1 || fit.rounds > kMostRounds) {
    throw ModuleUsage{fmt::format("--rounds: {} (expected 1 to {})", fit.rounds, kMostRounds)};
  }
  if (!(std::fabs(fit.prior) <= kMostPrior)) {
    throw ModuleUsage{
        fmt::format("--prior: {} (expected -{} to {})", fit.prior, kMostPrior, kMostPrior)};
  }
  const auto named = kPrecisionNames.find(precision);
  if (!named) {
    throw ModuleUsage{
        fmt::format("--precision: {} (expected {})", precision, kPrecisionNames.choices())};
  }
  fit.precision = *named;
  fit.threads = threads > 0 ? threads : auto_threads();
  const bool terminal = ::isatty(STDERR_FILENO) == 1 && !json;
  if (terminal) {
    fit.progress = [](const std::string& what) {
      fmt::print(stderr, "\r{}\x1b[K", what);
      std::fflush(stderr);
    };
  }
  const Result<Json> report = fit_module(args.front(), fit);
  if (terminal) fmt::print(stderr, "\r\x1b[K");
  if (report.ok()) show(*report, json);
  return report.status();
}

}  // namespace chimera
