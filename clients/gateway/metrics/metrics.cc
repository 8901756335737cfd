#include "clients/gateway/metrics/metrics.h"

#include <prometheus/counter.h>
#include <prometheus/gauge.h>
#include <prometheus/histogram.h>
#include <prometheus/registry.h>
#include <prometheus/text_serializer.h>

#include "clients/gateway/metrics/daemon_families.h"

namespace chimera::gateway {
namespace {

using prometheus::Counter;
using prometheus::Family;
using prometheus::Gauge;
using prometheus::Histogram;
using Buckets = Histogram::BucketBoundaries;

// The boundaries of OpenTelemetry's conventions; short ones where a small model answers faster.
const Buckets kHttpSeconds = {0.001, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5,
                              1,     2.5,   5,    10,    30,   60,  300};
const Buckets kRequestSeconds = {0.01, 0.02, 0.04,  0.08,  0.16,  0.32,  0.64,  1.28,
                                 2.56, 5.12, 10.24, 20.48, 40.96, 81.92, 163.84};
const Buckets kFirstTokenSeconds = {0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1,
                                    0.25,  0.5,   0.75, 1,    2.5,  5,    7.5,  10};
const Buckets kTokenSeconds = {0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1,
                               0.15,   0.2,   0.3,    0.4,   0.5,  0.75,  1,    2.5};

}  // namespace

struct Metrics::Impl {
  Family<Histogram>& histogram(const char* name, const char* help) {
    return prometheus::BuildHistogram().Name(name).Help(help).Register(registry);
  }
  Family<Counter>& counter(const char* name, const char* help) {
    return prometheus::BuildCounter().Name(name).Help(help).Register(registry);
  }
  Family<Gauge>& gauge(const char* name, const char* help) {
    return prometheus::BuildGauge().Name(name).Help(help).Register(registry);
  }

  prometheus::Registry registry;
  Family<Histogram>& http = histogram("http_server_request_duration_seconds",
                                      "Time from the request to the end of its answer");
  Family<Histogram>& request =
      histogram("gen_ai_server_request_duration_seconds", "Time of a request for text, by outcome");
  Family<Histogram>& first_token = histogram("gen_ai_server_time_to_first_token_seconds",
                                             "Time to the first token of an answer");
  Family<Histogram>& per_token = histogram("gen_ai_server_time_per_output_token_seconds",
                                           "Mean time of an answer's tokens behind the first");
  Family<Histogram>& queue =
      histogram("chimera_queue_seconds", "Time that an answer waited for its turn");
  Family<Histogram>& prefill =
      histogram("chimera_prefill_seconds", "Time that the daemon took to read a prompt");
  Family<Counter>& tokens =
      counter("chimera_tokens_total", "Tokens of requests that ended well, by principal and type");
  Family<Counter>& module_tokens =
      counter("chimera_module_tokens_total",
              "Generated tokens times the module's share of the gate's mass");
  Family<Gauge>& streams =
      gauge("chimera_gateway_requests_in_progress", "Requests for text that are being answered");
  Gauge& in_progress = streams.Add({});
  Gauge& open = gauge("chimera_gateway_connections", "Connections of clients").Add({});
};

class Metrics::Watch : public RunWatch {
 public:
  Watch(std::shared_ptr<Impl> impl, std::string operation, std::string model, std::string principal)
      : impl_(std::move(impl)),
        labels_{{"gen_ai_operation_name", std::move(operation)},
                {"gen_ai_request_model", std::move(model)}},
        principal_(std::move(principal)) {
    impl_->in_progress.Increment();
  }
  ~Watch() override { impl_->in_progress.Decrement(); }
  Watch(const Watch&) = delete;
  Watch& operator=(const Watch&) = delete;

  void first_token(double seconds) override {
    impl_->first_token.Add(labels_, kFirstTokenSeconds).Observe(seconds);
  }
  void choice(const ChoiceTimes& times) override {
    impl_->queue.Add(labels_, kFirstTokenSeconds).Observe(times.queue);
    impl_->prefill.Add(labels_, kFirstTokenSeconds).Observe(times.prefill);
    if (times.tokens < 2) return;
    impl_->per_token.Add(labels_, kTokenSeconds)
        .Observe(times.decode / static_cast<double>(times.tokens - 1));
  }
  void ended(const RunEnd& end) override {
    auto labels = labels_;
    if (end.outcome != "ok") labels.emplace("error_type", end.outcome);
    impl_->request.Add(labels, kRequestSeconds).Observe(end.seconds);
    if (end.outcome != "ok") return;
    add("input", end.input_tokens);
    add("output", end.output_tokens);
    add("cached", end.cached_tokens);
    for (const auto& [module, share] : end.shares) {
      impl_->module_tokens.Add({{"module", module}})
          .Increment(share * static_cast<double>(end.output_tokens));
    }
  }

 private:
  void add(const char* type, int64_t tokens) {
    impl_->tokens.Add({{"principal", principal_}, {"type", type}})
        .Increment(static_cast<double>(tokens));
  }

  const std::shared_ptr<Impl> impl_;
  const std::map<std::string, std::string> labels_;
  const std::string principal_;
};

Metrics::Metrics() : impl_(std::make_shared<Impl>()) {}
Metrics::~Metrics() = default;

void Metrics::http(std::string_view method, std::string_view route, unsigned status,
                   double seconds) {
  impl_->http
      .Add({{"http_request_method", std::string(method)},
            {"http_route", std::string(route)},
            {"http_response_status_code", std::to_string(status)}},
           kHttpSeconds)
      .Observe(seconds);
}

void Metrics::connections(size_t open) { impl_->open.Set(static_cast<double>(open)); }

std::unique_ptr<RunWatch> Metrics::watch(std::string operation, std::string model,
                                         std::string principal) {
  return std::make_unique<Watch>(impl_, std::move(operation), std::move(model),
                                 std::move(principal));
}

std::string Metrics::text(const DaemonState& daemon) const {
  auto families = impl_->registry.Collect();
  append_daemon_families(daemon, families);
  return prometheus::TextSerializer().Serialize(families);
}

}  // namespace chimera::gateway
