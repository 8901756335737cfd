#include "clients/gateway/metrics/daemon_families.h"

#include <array>
#include <limits>

namespace chimera::gateway {
namespace {

using prometheus::ClientMetric;
using prometheus::MetricFamily;
using prometheus::MetricType;
using Labels = std::vector<ClientMetric::Label>;

class Writer {
 public:
  Writer(MetricType type, const char* name, const char* help) : family_{name, help, type, {}} {}
  void add(Labels labels, double value) {
    ClientMetric metric;
    metric.label = std::move(labels);
    if (family_.type == MetricType::Counter) metric.counter.value = value;
    if (family_.type == MetricType::Gauge) metric.gauge.value = value;
    family_.metric.push_back(std::move(metric));
  }
  /// `counts` of each bucket, one more than `ends`, become those up to each end.
  void add(const Json& ends, const Json& counts, double sum) {
    ClientMetric metric;
    uint64_t total = 0;
    for (size_t i = 0; i < counts.size(); ++i) {
      total += counts[i].natural().value_or(0);
      const auto end = ends.at(i).number();
      metric.histogram.bucket.push_back(
          {total, end.value_or(std::numeric_limits<double>::infinity())});
    }
    metric.histogram.sample_count = total;
    metric.histogram.sample_sum = sum;
    family_.metric.push_back(std::move(metric));
  }
  MetricFamily take() { return std::move(family_); }

 private:
  MetricFamily family_;
};

/// Rows of one family: the value of a label, and the member of `engine` that it shows.
struct Row {
  const char* label;
  const char* member;
};

template <size_t N>
MetricFamily of_engine(const Json& engine, MetricType type, const char* name, const char* help,
                       const char* label, const std::array<Row, N>& rows) {
  Writer family(type, name, help);
  for (const Row& row : rows) {
    family.add({{label, row.label}}, engine[row.member].number().value_or(0.0));
  }
  return family.take();
}

void append_engine(const Json& stats, std::vector<MetricFamily>& out) {
  const Json& engine = stats["engine"];
  Writer epoch(MetricType::Gauge, "chimera_daemon_epoch", "Number of the current routing table");
  epoch.add({}, stats["epoch"].number().value_or(0.0));
  out.push_back(epoch.take());
  out.push_back(of_engine(engine, MetricType::Gauge, "chimera_daemon_sequences",
                          "Sequences in the daemon", "state",
                          std::array{Row{"live", "live"}, Row{"waiting", "waiting"}}));
  out.push_back(of_engine(engine, MetricType::Counter, "chimera_daemon_requests_total",
                          "Requests for text that the daemon has dealt with, by outcome", "outcome",
                          std::array{Row{"finished", "finished"}, Row{"failed", "failed"},
                                     Row{"cancelled", "cancelled"}, Row{"rejected", "rejected"}}));
  out.push_back(
      of_engine(engine, MetricType::Counter, "chimera_daemon_tokens_total",
                "Tokens that the daemon has dealt with", "type",
                std::array{Row{"input", "prompt_tokens"}, Row{"output", "generated_tokens"},
                           Row{"cached", "cached_tokens"}}));
  Writer steps(MetricType::Counter, "chimera_daemon_steps_total", "Steps of the engine");
  steps.add({}, engine["steps"].number().value_or(0.0));
  out.push_back(steps.take());
  Writer blocks(MetricType::Gauge, "chimera_daemon_kv_blocks", "Blocks of the KV cache");
  const double total = engine["kv_blocks_total"].number().value_or(0.0);
  const double free = engine["kv_blocks_free"].number().value_or(0.0);
  blocks.add({{"state", "used"}}, total - free);
  blocks.add({{"state", "free"}}, free);
  out.push_back(blocks.take());
}

/// Of a daemon with a budget for adapters.
void append_adapters(const Json& adapters, std::vector<MetricFamily>& out) {
  if (!adapters.is_object()) return;
  out.push_back(of_engine(adapters, MetricType::Gauge, "chimera_daemon_adapter_bytes",
                          "Memory of adapters", "kind",
                          std::array{Row{"used", "bytes"}, Row{"limit", "limit_bytes"}}));
  out.push_back(of_engine(adapters, MetricType::Gauge, "chimera_daemon_adapters", "Adapters",
                          "state",
                          std::array{Row{"registered", "registered"}, Row{"resident", "resident"},
                                     Row{"in_use", "in_use"}}));
  out.push_back(of_engine(adapters, MetricType::Counter, "chimera_daemon_adapter_events_total",
                          "What became of adapters in memory", "event",
                          std::array{Row{"read", "reads"}, Row{"read_failed", "read_failures"},
                                     Row{"evicted", "evictions"}}));
  Writer waiting(MetricType::Gauge, "chimera_daemon_adapter_waits",
                 "Sequences that wait for adapters");
  waiting.add({}, adapters["waiting"].number().value_or(0.0));
  out.push_back(waiting.take());
}

/// What the daemon counted itself, whoever asked it.
void append_latencies(const Json& latency, std::vector<MetricFamily>& out) {
  struct Shown {
    const char *member, *name, *help;
  };
  static constexpr std::array kShown = {
      Shown{"queue", "chimera_daemon_queue_seconds", "From a request's arrival to its admission"},
      Shown{"prefill", "chimera_daemon_prefill_seconds",
            "From admission to the first token, or to the end of what is only read"},
      Shown{"first_token", "chimera_daemon_time_to_first_token_seconds",
            "From arrival to the first token"},
      Shown{"inter_token", "chimera_daemon_inter_token_seconds", "From one token to the next"},
      Shown{"step", "chimera_daemon_step_seconds", "Time of a step of the engine"},
      Shown{"request", "chimera_daemon_request_seconds", "From arrival to a complete answer"}};
  if (!latency.is_object()) return;  // of a daemon that does not count them yet
  for (const Shown& shown : kShown) {
    Writer family(MetricType::Histogram, shown.name, shown.help);
    const Json& of = latency[shown.member];
    family.add(latency["le"], of["counts"], of.value("sum", 0.0));
    out.push_back(family.take());
  }
}

void append_modules(const Json& modules, std::vector<MetricFamily>& out) {
  Writer info(MetricType::Gauge, "chimera_module_info", "1 for each module that is loaded");
  Writer bytes(MetricType::Gauge, "chimera_module_resident_bytes", "Memory of a module");
  Writer bias(MetricType::Gauge, "chimera_module_bias", "Bias of a module at the gate");
  for (const Json& module : modules["modules"]) {
    const std::string name = module.value("name", "");
    info.add({{"module", name},
              {"version", module.value("version", "")},
              {"state", module.value("state", "")}},
             1.0);
    bytes.add({{"module", name}}, module.value("resident_bytes", 0.0));
    bias.add({{"module", name}}, module.value("bias", 0.0));
  }
  out.push_back(info.take());
  out.push_back(bytes.take());
  out.push_back(bias.take());
}

/// Over all layers: how often an expert of the module was chosen. Falls when the counting is reset.
void append_routing(const Json& routing, std::vector<MetricFamily>& out) {
  std::map<std::string, double> chosen;
  for (const Json& layer : routing["layers"]) {
    for (const auto& [name, module] : layer["modules"].items()) {
      for (const Json& count : module["experts"]) chosen[name] += count.number().value_or(0.0);
    }
  }
  Writer family(MetricType::Counter, "chimera_module_routed_total",
                "Choices of a module's experts, over all layers");
  for (const auto& [name, count] : chosen) family.add({{"module", name}}, count);
  out.push_back(family.take());
}

}  // namespace

void append_daemon_families(const DaemonState& daemon, std::vector<MetricFamily>& out) {
  Writer up(MetricType::Gauge, "chimera_daemon_up", "Whether the daemon answers");
  up.add({}, daemon.stats.is_object() ? 1.0 : 0.0);
  out.push_back(up.take());
  if (daemon.stats.is_object()) {
    append_engine(daemon.stats, out);
    append_adapters(daemon.stats["adapters"], out);
    append_latencies(daemon.stats["engine"]["latency_seconds"], out);
  }
  if (daemon.modules.is_object()) append_modules(daemon.modules, out);
  if (daemon.routing.is_object()) append_routing(daemon.routing, out);
}

}  // namespace chimera::gateway
