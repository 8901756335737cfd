#include "rates/report.h"

#include <fmt/format.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <fstream>
#include <utility>

#include "base/json/writer.h"
#include "base/version.h"
#include "compute/kernels/kernels.h"

namespace chimera::bench {
namespace {

/// CPU seconds of this process, all threads.
double process_cpu_s() {
  timespec t{};
  clock_gettime(CLOCK_PROCESS_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

std::string cpu_model() {
  std::ifstream info("/proc/cpuinfo");
  for (std::string line; std::getline(info, line);) {
    const size_t colon = line.find(": ");
    if (line.starts_with("model name") && colon != std::string::npos) return line.substr(colon + 2);
  }
  return "unknown";
}

Json spread_json(const std::vector<double>& samples) {
  const Spread s = spread(samples);
  return Json{{"median", s.median}, {"min", s.min}, {"max", s.max}};
}

}  // namespace

Report::Report(std::string workload, int threads)
    : workload_(std::move(workload)),
      threads_(threads),
      begin_(CpuTimes::read()),
      own_begin_(process_cpu_s()) {}

Report::Load Report::load() const {
  const CpuTimes now = CpuTimes::read();
  const double ticks = now.total - begin_.total;
  if (ticks <= 0) return {};
  const double own =
      (process_cpu_s() - own_begin_) * static_cast<double>(sysconf(_SC_CLK_TCK)) / ticks;
  const double stolen = now.stolen_since(begin_);
  return {own, std::max(0.0, now.busy_since(begin_) - own - stolen), stolen};
}

Json Report::json() const {
  const Load l = load();
  Json out{{"workload", workload_},
           {"version", version()},
           {"cpu", cpu_model()},
           {"isa", best_kernels().name},
           {"threads", threads_},
           {"load", Json{{"own", l.own}, {"others", l.others}, {"stolen", l.stolen}}},
           {"settings", settings_},
           {"figures", Json::array()}};
  for (const Figure& f : figures_) {
    Json one{{"name", f.name}, {"unit", f.unit}};
    one.update(spread_json(f.samples));
    one["samples"] = f.samples;
    if (!f.limit_name.empty()) {
      Json limit{{"name", f.limit_name}, {"unit", f.limit_unit}};
      limit.update(spread_json(f.limits));
      one["limit"] = std::move(limit);
      one["fraction"] = spread_json(f.fractions);
    }
    out.find("figures")->push_back(std::move(one));
  }
  return out;
}

void Report::print_table() const {
  const Load l = load();
  fmt::print("{}: {}, {} threads, {}; others took {:.0f} % of the CPUs, the host {:.0f} %\n",
             workload_, cpu_model(), threads_, best_kernels().name, 100 * l.others, 100 * l.stolen);
  for (const auto& [key, value] : settings_.items()) {
    const std::string* text = value.string();
    fmt::print("  {:<12}{}\n", key, text != nullptr ? *text : write_json(value));
  }
  for (const Figure& f : figures_) {
    const Spread s = spread(f.samples);
    fmt::print("  {:<30}{:>10.2f} {:<9} ({:.2f} to {:.2f})", f.name, s.median, f.unit, s.min,
               s.max);
    if (!f.limit_name.empty())
      fmt::print("   {:.2f} of {} ({:.1f} {})", spread(f.fractions).median, f.limit_name,
                 spread(f.limits).median, f.limit_unit);
    fmt::print("\n");
  }
}

void Report::print(bool as_json) const {
  if (as_json)
    fmt::print("{}\n", write_json(json()));
  else
    print_table();
}

}  // namespace chimera::bench
