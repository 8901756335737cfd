// Order statistics of repeated measurements: benches report median and spread, never one run.
//
// Thread safety: values and free functions, from any thread.
#pragma once

#include <time.h>

#include <algorithm>
#include <chrono>
#include <cstddef>
#include <fstream>
#include <string>
#include <vector>

namespace chimera::bench {

inline double now_s() {
  return std::chrono::duration<double>(std::chrono::steady_clock::now().time_since_epoch()).count();
}

/// CPU seconds of the calling thread: the figure of one core whatever else the machine does.
inline double cpu_s() {
  timespec t{};
  clock_gettime(CLOCK_THREAD_CPUTIME_ID, &t);
  return static_cast<double>(t.tv_sec) + 1e-9 * static_cast<double>(t.tv_nsec);
}

/// CPU time of the whole machine as /proc/stat tells it, in ticks; all zero where there is none.
struct CpuTimes {
  double total = 0, idle = 0, stolen = 0;  // stolen: what the hypervisor gave to other guests

  static CpuTimes read() {
    std::ifstream stat("/proc/stat");
    std::string label;
    stat >> label;
    CpuTimes times;
    double ticks = 0;
    // user nice system idle iowait irq softirq steal
    for (int field = 0; field < 8 && stat >> ticks; ++field) {
      times.total += ticks;
      if (field == 3 || field == 4) times.idle += ticks;
      if (field == 7) times.stolen = ticks;
    }
    return times;
  }
  /// In [0, 1]. A measurement beside more than a few percent says little about the program.
  double stolen_since(const CpuTimes& before) const {
    return total > before.total ? (stolen - before.stolen) / (total - before.total) : 0.0;
  }
  /// In [0, 1]: of the time since then, what somebody used or was stolen.
  double busy_since(const CpuTimes& before) const {
    return total > before.total ? 1.0 - (idle - before.idle) / (total - before.total) : 0.0;
  }
};

/// Quantile q in [0, 1] by linear interpolation; 0 for no samples.
inline double quantile(std::vector<double> samples, double q) {
  if (samples.empty()) return 0.0;
  std::sort(samples.begin(), samples.end());
  const double at = q * static_cast<double>(samples.size() - 1);
  const auto low = static_cast<size_t>(at);
  const size_t high = std::min(low + 1, samples.size() - 1);
  return samples[low] + (samples[high] - samples[low]) * (at - static_cast<double>(low));
}

struct Spread {
  double min = 0, median = 0, max = 0;
};

inline Spread spread(const std::vector<double>& samples) {
  return {quantile(samples, 0.0), quantile(samples, 0.5), quantile(samples, 1.0)};
}

}  // namespace chimera::bench
