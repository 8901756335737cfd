// chimera.metrics/1.
#include <fmt/format.h>

#include <algorithm>
#include <cmath>

#include "experts/library/plugin_services.h"

namespace chimera {
namespace {

bool is_metric_name(chimera_text text) {
  if (text.data_borrowed == nullptr || text.size == 0 || text.size > 63) return false;
  const std::string_view name(text.data_borrowed, text.size);
  return name.front() >= 'a' && name.front() <= 'z' &&
         std::all_of(name.begin(), name.end(), [](char c) {
           return (c >= 'a' && c <= 'z') || (c >= '0' && c <= '9') || c == '_';
         });
}

}  // namespace

uint32_t PluginHost::declare_counter(chimera_text name) {
  if (!is_metric_name(name)) return 0;
  const std::string text(name.data_borrowed, name.size);
  const MutexLock guard(metrics_mutex_);
  const uint32_t count = counter_count_.load();
  for (uint32_t i = 0; i < count; ++i) {
    if (counters_[i].name == text) return i + 1;
  }
  if (count == counters_.size()) return 0;
  counters_[count].name = text;
  counter_count_.store(count + 1);
  return count + 1;
}

uint32_t PluginHost::declare_histogram(chimera_text name, const double* bounds, uint32_t count) {
  if (!is_metric_name(name) || count > CHIMERA_METRICS_MAX_BOUNDS ||
      (bounds == nullptr && count != 0)) {
    return 0;
  }
  for (uint32_t i = 0; i < count; ++i) {
    if (!std::isfinite(bounds[i]) || (i != 0 && bounds[i] <= bounds[i - 1])) return 0;
  }
  const std::string text(name.data_borrowed, name.size);
  const MutexLock guard(metrics_mutex_);
  const uint32_t known = histogram_count_.load();
  for (uint32_t i = 0; i < known; ++i) {
    if (histograms_[i].name == text) return i + 1;
  }
  if (known == histograms_.size()) return 0;
  histograms_[known].name = text;
  histograms_[known].bounds.assign(bounds, bounds + count);
  histogram_count_.store(known + 1);
  return known + 1;
}

std::map<std::string, uint64_t> PluginHost::counters() const {
  const MutexLock guard(metrics_mutex_);
  std::map<std::string, uint64_t> all;
  for (uint32_t i = 0; i < counter_count_.load(); ++i) {
    all[counters_[i].name] = counters_[i].value.load();
  }
  for (uint32_t i = 0; i < histogram_count_.load(); ++i) {
    const Histogram& h = histograms_[i];
    uint64_t total = 0;
    for (size_t b = 0; b <= h.bounds.size(); ++b) {
      total += h.buckets[b].load();
      if (b < h.bounds.size()) all[fmt::format("{}_le_{}", h.name, h.bounds[b])] = total;
    }
    all[h.name + "_count"] = total;
  }
  return all;
}

uint32_t PluginServices::metrics_counter(const chimera_host* host, chimera_text name) {
  return of(host).declare_counter(name);
}

uint32_t PluginServices::metrics_histogram(const chimera_host* host, chimera_text name,
                                           const double* bounds, uint32_t count) {
  return of(host).declare_histogram(name, bounds, count);
}

void PluginServices::metrics_add(const chimera_host* host, uint32_t counter, uint64_t amount) {
  PluginHost& h = of(host);
  if (counter == 0 || counter > h.counter_count_.load(std::memory_order_acquire)) return;
  h.counters_[counter - 1].value.fetch_add(amount, std::memory_order_relaxed);
}

void PluginServices::metrics_observe(const chimera_host* host, uint32_t histogram, double value) {
  PluginHost& h = of(host);
  if (histogram == 0 || histogram > h.histogram_count_.load(std::memory_order_acquire) ||
      std::isnan(value)) {
    return;
  }
  PluginHost::Histogram& into = h.histograms_[histogram - 1];
  const auto at = std::lower_bound(into.bounds.begin(), into.bounds.end(), value);
  into.buckets[static_cast<size_t>(at - into.bounds.begin())].fetch_add(1,
                                                                        std::memory_order_relaxed);
}

}  // namespace chimera
