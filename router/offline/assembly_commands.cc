#include "router/offline/assembly_commands.h"

#include <fmt/format.h>
#include <unistd.h>

#include <boost/program_options.hpp>
#include <charconv>
#include <cstdio>
#include <cstdlib>

#include "base/quote.h"
#include "base/steady_time.h"
#include "base/threads/thread_pool.h"
#include "experts/offline/assembly/assemble.h"
#include "experts/offline/assembly/diff_report.h"
#include "experts/offline/assembly/merge_adapter.h"
#include "experts/offline/assembly/plan_report.h"
#include "experts/offline/cut.h"
#include "experts/offline/module_print.h"
#include "router/offline/module_commands.h"

namespace chimera {
namespace {

namespace po = boost::program_options;
using Words = std::vector<std::string>;

po::variables_map parse(const Words& words, const po::options_description& options, size_t count,
                        const char* what) {
  po::options_description all;
  all.add(options).add_options()("args", po::value<Words>()->default_value({}, ""), "");
  po::positional_options_description positional;
  positional.add("args", -1);
  po::variables_map values;
  po::store(po::command_line_parser(words).options(all).positional(positional).run(), values);
  po::notify(values);
  const size_t found = values["args"].as<Words>().size();
  if (found != count) {
    throw ModuleUsage{fmt::format("found {} arguments (expected {})", found, what)};
  }
  return values;
}

/// "512M", "2GiB", "1.5G": binary multiples.
uint64_t parse_bytes(const std::string& option, const std::string& text) {
  double value = 0;
  const char* end = text.data() + text.size();
  const auto number = std::from_chars(text.data(), end, value);
  const std::string unit(number.ptr, end);
  double factor = 0;
  for (const auto& [name, size] : {std::pair{"K", 10}, {"M", 20}, {"G", 30}, {"T", 40}}) {
    for (const char* tail : {"", "B", "iB"}) {
      if (unit == std::string(name) + tail) factor = static_cast<double>(uint64_t{1} << size);
    }
  }
  const bool good = number.ec == std::errc() && factor > 0 && value > 0 && value < 1e6;
  if (!good)
    throw ModuleUsage{fmt::format("{}: {} (expected a size such as 2G)", option, quote(text))};
  return static_cast<uint64_t>(value * factor);
}

/// $XDG_CACHE_HOME/chimera or ~/.cache/chimera.
std::string cache_dir() {
  const char* cache = std::getenv("XDG_CACHE_HOME");
  if (cache != nullptr && *cache == '/') return std::string(cache) + "/chimera";
  const char* home = std::getenv("HOME");
  return home != nullptr && *home == '/' ? std::string(home) + "/.cache/chimera" : "";
}

int64_t now_us() { return static_cast<int64_t>(steady_now_ns() / 1000); }

/// A line that is written over; on terminals only, at most ten times a second.
class ProgressLine {
 public:
  ProgressLine() : shown_(::isatty(STDERR_FILENO) == 1), begin_(now_us()) {}
  ~ProgressLine() {
    if (shown_) fmt::print(stderr, "\r\x1b[K");
  }

  void show(uint64_t done, uint64_t total) {
    const int64_t now = now_us();
    if (!shown_ || total == 0 || now - last_ < 100'000) return;
    last_ = now;
    constexpr int kWidth = 30;
    const double seconds = static_cast<double>(now - begin_) / 1e6;
    const double part = std::min(1.0, static_cast<double>(done) / static_cast<double>(total));
    const double rate = static_cast<double>(done) / std::max(seconds, 1e-3);
    const auto left = static_cast<double>(total - std::min(total, done)) / std::max(rate, 1.0);
    const auto full = static_cast<size_t>(part * kWidth);
    fmt::print(stderr, "\r[{:<{}}] {:3.0f} %  {:.2f} GB/s  {:.0f} s left \x1b[K",
               std::string(full, '='), kWidth, part * 100, rate / 1e9, left);
    std::fflush(stderr);
  }

 private:
  bool shown_;
  int64_t begin_;
  int64_t last_ = 0;
};

int thread_count(int wanted) { return wanted > 0 ? wanted : auto_threads(); }

}  // namespace

Status run_assemble(const Words& words, bool json) {
  AssembleOptions assembly;
  std::string memory, shard;
  int threads = 0;
  bool dry_run = false;
  po::options_description options;
  auto add = options.add_options();
  add("out", po::value(&assembly.out_dir));
  add("memory", po::value(&memory));
  add("shard-size", po::value(&shard));
  add("threads", po::value(&threads));
  add("dry-run", po::bool_switch(&dry_run));
  const auto values = parse(words, options, 1, "RECIPE.yaml");
  if (!memory.empty()) assembly.memory = parse_bytes("--memory", memory);
  const uint64_t shard_bytes = shard.empty() ? kShardBytes : parse_bytes("--shard-size", shard);
  if (!dry_run && assembly.out_dir.empty()) throw ModuleUsage{"--out: found none (expected DIR)"};

  Result<Recipe> recipe = read_recipe(values["args"].as<Words>().front());
  if (!recipe.ok()) return recipe.status();
  const Result<AssemblyPlan> plan = plan_assembly(std::move(*recipe), shard_bytes);
  if (!plan.ok()) return plan.status();
  for (const std::string& warning : plan->warnings) {
    fmt::print(stderr, "chimera: warning: {}\n", warning);
  }
  if (dry_run) {
    print_plan(*plan, json);
    return {};
  }
  assembly.threads = thread_count(threads);
  assembly.cache_dir = cache_dir();
  Result<Json> report = Json();
  {
    ProgressLine line;
    assembly.progress = [&](uint64_t done, uint64_t total) { line.show(done, total); };
    report = assemble(*plan, assembly);
  }
  if (report.ok()) print_report(*report, json);
  return report.status();
}

Status run_merge(const Words& words, bool json) {
  MergeOptions merge;
  std::string shard;
  int threads = 0;
  po::options_description options;
  auto add = options.add_options();
  add("backbone", po::value(&merge.backbone)->required());
  add("out", po::value(&merge.out)->required());
  add("module", po::value(&merge.module));
  add("license", po::value(&merge.license));
  add("shard-size", po::value(&shard));
  add("threads", po::value(&threads));
  const auto values = parse(words, options, 1, "ADAPTER");
  merge.adapter = values["args"].as<Words>().front();
  const bool module = values.count("module") != 0;
  if (module && merge.module.empty()) throw ModuleUsage{"--module: found \"\" (expected NAME)"};
  if (module && !shard.empty())
    throw ModuleUsage{"--shard-size: found with --module (expected without: it is one file)"};
  if (!module && values.count("license") != 0)
    throw ModuleUsage{"--license: found without --module (expected with: it is the module's)"};
  if (!shard.empty()) merge.shard_bytes = parse_bytes("--shard-size", shard);
  merge.threads = thread_count(threads);
  const Result<Json> report = merge_adapter(merge);
  if (report.ok()) print_report(*report, json);
  return report.status();
}

Status run_diff(const Words& words, bool json) {
  DiffOptions diff;
  std::string plot;
  int threads = 0;
  bool csv = false;
  po::options_description options;
  auto add = options.add_options();
  add("csv", po::bool_switch(&csv));
  add("plot", po::value(&plot));
  add("spectrum", po::value(&diff.spectrum)->default_value(diff.spectrum));
  add("threads", po::value(&threads));
  const auto values = parse(words, options, 2, "A B");
  const auto& args = values["args"].as<Words>();
  diff.threads = thread_count(threads);
  const Result<std::vector<DiffGroup>> groups = diff_parents(args[0], args[1], diff);
  if (!groups.ok()) return groups.status();
  if (!plot.empty()) CHIMERA_RETURN_IF_ERROR(write_diff_plot(*groups, plot));
  fmt::print("{}", csv ? diff_csv(*groups) : json ? diff_json(*groups) : diff_table(*groups));
  return {};
}

}  // namespace chimera
