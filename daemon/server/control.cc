#include <fmt/format.h>

#include "base/json/reader.h"
#include "base/log/log.h"
#include "base/quote.h"
#include "clients/wire/strict_json.h"
#include "daemon/server/answers/events.h"
#include "daemon/server/answers/reports.h"
#include "daemon/server/calls.h"
#include "daemon/server/wish.h"

namespace chimera {
namespace {

using std::chrono::milliseconds;

constexpr int64_t kDefaultDrainMs = 30'000;

Status check_absolute(std::string_view what, std::string_view path) {
  if (path.starts_with('/')) return {};
  return Status(Code::kInvalidArgument,
                fmt::format("{}: {} (expected an absolute path)", what, quote(path)),
                "the daemon does not know your directory; `chimera` makes paths absolute");
}

/// What a canary leaves no choice of.
Status check_canary(const wire::Load& call) {
  if (!call.canary || (!call.restart && call.enabled.value_or(true))) return {};
  return Status(Code::kInvalidArgument,
                fmt::format("load.{} beside load.canary (expected one of them)",
                            call.restart ? "in_flight: restart" : "enabled: false"),
                "streams in progress stay where they are, and new ones try the module");
}

/// The wire protocol knows no formats of weights.
Status check_precision(const wire::Load& call) {
  if (!call.precision || kPrecisionNames.find(*call.precision)) return {};
  return {Code::kInvalidArgument, fmt::format("load.precision: found {} (expected {})",
                                              *call.precision, kPrecisionNames.choices())};
}

/// A change that was not made is an event of the daemon as much as one that was.
void log_refused(std::string_view call, std::string_view what, const Status& status) {
  log::warning("change_refused", {{"call", call},
                                  {"what", what},
                                  {"code", code_name(status.code())},
                                  {"reason", status.message()}});
}

Json to_json(const std::vector<RestartNote>& notes) {
  Json out = Json::array();
  for (const RestartNote& note : notes) {
    out.push_back({{"key", note.key}, {"wanted", note.wanted}, {"running", note.running}});
  }
  return out;
}

InFlight in_flight(bool restart) { return restart ? InFlight::kRestart : InFlight::kPin; }

/// Puts epoch and composition of the current table beside `fields`.
Json with_epoch(const CallContext& context, Json fields) {
  PublishedEpoch current = context.options.engine->current();
  fields["epoch"] = current.epoch;
  fields["composition"] = std::move(current.composition);
  return fields;
}

Json server_stats(const CallContext& context) {
  const ServerCounters& counters = context.counters;
  return {{"requests", counters.requests.load()},
          {"refused", counters.refused.load()},
          {"slow_clients", counters.slow_clients.load()},
          {"gone_clients", counters.gone_clients.load()},
          {"live", counters.live.load()},
          {"clients", counters.clients.load()},
          {"draining", context.draining.load()}};
}

/// A change as it was asked for: the call, what it is about, and fields of its answer.
struct Asked {
  std::string_view call;
  std::string what;
  ChangeRequest request;
  Json fields = Json::object();
};

/// Asks for a change, in the order in which the calls came, and answers when it is made or refused,
/// or at once, as `waiting` says. What has not begun is given up when it is withdrawn.
void ask(CallContext& context, const std::shared_ptr<Live>& live, Asked asked,
         const wire::Waiting& waiting = {}) {
  Registry* registry = context.options.registry;
  Asker asker{live->turn, [live] { return live->withdrawal().value_or(Status()); }};
  if (waiting.wait && waiting.progress) {
    asker.on_progress = [live](const JobStatus& job) {
      live->progress(encode_progress(live->id(), {{"job", to_json(job)}}));
    };
  }
  // The record is of the change, not of the answer that tells its number.
  const auto record = waiting.wait ? nullptr : live->take_recorder();
  const std::string job = registry->ask(
      std::move(asked.request), std::move(asker),
      [live, record, call = asked.call, what = std::move(asked.what),
       fields = std::move(asked.fields)](const Result<ChangeReport>& report) {
        if (record) record(report.status(), [] {});
        reply_change(live, call, what, report, fields);  // to nobody, when the answer is out
      });
  if (!waiting.wait) {
    return live->answer(encode_reply(live->id(), with_epoch(context, {{"job", job}})));
  }
  if (job.empty() || waiting.detach) return;
  live->set_canceller([registry, job] { registry->cancel(job); });
}

void apply_wish(CallContext& context, const std::shared_ptr<Live>& live, const wire::Apply& call) {
  const DeploymentConfig& running = *context.options.config;
  auto wish = read_wish(call.wish, running);
  if (!wish.ok()) return reply_change(live, "apply", "", wish.status());
  const auto check = [&running, backbone = wish->backbone,
                      fingerprint = context.options.model.fingerprint] {
    return check_backbone(backbone, running, fingerprint);
  };
  ask(context, live,
      {"apply",
       "",
       ApplyArgs{std::move(wish->composition), in_flight(call.restart), check},
       {{"needs_restart", to_json(wish->restart)}}},
      call.waiting);
}

void drain_engine(CallContext& context, const std::shared_ptr<Live>& live, milliseconds timeout) {
  // In slices, so that the end of the daemon does not wait for a day-long drain.
  constexpr milliseconds kSlice{100};
  const auto end = std::chrono::steady_clock::now() + timeout;
  bool drained = false;
  while (!drained && !context.stopping) {
    const auto left =
        std::chrono::duration_cast<milliseconds>(end - std::chrono::steady_clock::now());
    drained = context.options.engine->drain(std::clamp(left, milliseconds(0), kSlice));
    if (left <= milliseconds(0)) break;
  }
  live->answer(encode_reply(live->id(), with_epoch(context, {{"drained", drained}})));
}

}  // namespace

void reply_change(const std::shared_ptr<Live>& live, std::string_view call, std::string_view what,
                  const Result<ChangeReport>& report, Json fields) {
  if (!report.ok()) {
    log_refused(call, what, report.status());
    return live->on_error(report.status());
  }
  fields.update(to_json(report.value()));
  live->answer(encode_reply(live->id(), fields));
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Modules) {
  context.queries.post(live, [&context, live] {
    Json modules = Json::array();
    for (const auto& module : context.options.registry->modules()) {
      modules.push_back(to_json(module));
    }
    Json jobs = Json::array();
    for (const JobStatus& job : context.options.registry->jobs()) jobs.push_back(to_json(job));
    Json kept = to_json(context.options.registry->library_stats())["kept_images"];
    Json fields = {{"modules", std::move(modules)},
                   {"jobs", std::move(jobs)},
                   {"kept_libraries", std::move(kept)}};
    const Composition composition = context.options.registry->composition();
    if (composition.top_k) fields["top_k"] = *composition.top_k;
    live->answer(encode_reply(live->id(), with_epoch(context, std::move(fields))));
  });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Load call) {
  Status status = check_absolute("load.path", call.path);
  if (status.ok()) status = check_canary(call);
  if (status.ok()) status = check_precision(call);
  if (!status.ok()) return live->on_error(status);
  context.changes.post(live, [&context, live, call = std::move(call)] {
    LoadArgs args;
    args.path = call.path;
    args.name = call.name.value_or("");
    args.enabled = call.enabled;
    args.in_flight = in_flight(call.restart);
    if (call.bias) args.bias = static_cast<float>(*call.bias);
    if (call.precision) args.precision = kPrecisionNames.find(*call.precision);
    args.weight = call.weight;
    args.canary = call.canary;
    ask(context, live, {"load", call.path, std::move(args)}, call.waiting);
  });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Unload call) {
  context.changes.post(live, [&context, live, call = std::move(call)] {
    ask(context, live, {"unload", call.name, UnloadArgs{call.name}});
  });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Bias call) {
  context.changes.post(live, [&context, live, call = std::move(call)] {
    ask(context, live,
        {"bias", call.name, EditArgs{call.name, {std::nullopt, static_cast<float>(call.value)}}});
  });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Blend call) {
  context.changes.post(live, [&context, live, call = std::move(call)] {
    ask(context, live,
        {"blend", call.name, BlendArgs{call.name, call.lambda, in_flight(call.restart)}},
        call.waiting);
  });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Canary) {
  context.queries.post(live, [&context, live] {
    Json fields = Json::object();
    if (const auto running = context.options.registry->canary())
      fields["canary"] = to_json(*running);
    if (const auto last = context.options.registry->last_canary()) fields["last"] = to_json(*last);
    live->answer(encode_reply(live->id(), with_epoch(context, std::move(fields))));
  });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Promote) {
  context.changes.post(live, [&context, live] {
    ask(context, live, {"promote", "", PromoteArgs{}});
  });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Abort) {
  // Like a revocation it waits for no change before it.
  context.queries.post(live, [&context, live] {
    reply_change(live, "abort", "", context.options.registry->abort_canary());
  });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Enable call) {
  context.changes.post(live, [&context, live, call = std::move(call)] {
    ask(context, live, {"enable", call.name, EditArgs{call.name, {true, std::nullopt}}});
  });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Disable call) {
  context.changes.post(live, [&context, live, call = std::move(call)] {
    ask(context, live, {"disable", call.name, EditArgs{call.name, {false, std::nullopt}}});
  });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Plan call) {
  // With `probe` it loads and probes aside, which takes as long as a load.
  Worker& worker = call.probe ? context.probes : context.plans;
  worker.post(live, [&context, live, call = std::move(call)] {
    const DeploymentConfig& running = *context.options.config;
    const auto wish = read_wish(call.wish, running);
    if (!wish.ok()) return live->on_error(wish.status());
    const Status backbone =
        check_backbone(wish->backbone, running, context.options.model.fingerprint);
    PlanReport report;
    if (backbone.ok()) {
      Registry& registry = *context.options.registry;
      report = call.probe ? registry.plan(wish->composition) : registry.outline(wish->composition);
    } else {
      report.refusals.push_back(backbone);
    }
    Json out = to_json(report);
    out["needs_restart"] = to_json(wish->restart);
    out["epoch"] = context.options.engine->current().epoch;
    if (context.options.memory) out["memory"] = to_json(context.options.memory->account());
    live->answer(encode_reply(live->id(), out));
  });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Apply call) {
  context.changes.post(
      live, [&context, live, call = std::move(call)] { apply_wish(context, live, call); });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Rollback call) {
  context.changes.post(live, [&context, live, call] {
    ask(context, live,
        {"rollback", call.epoch ? std::to_string(*call.epoch) : "", RollbackArgs{call.epoch}},
        call.waiting);
  });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Epochs) {
  context.queries.post(live, [&context, live] {
    Json current = Json::array(), history = Json::array();
    for (const auto& epoch : context.options.engine->epochs()) current.push_back(to_json(epoch));
    for (const auto& record : context.options.registry->history()) {
      history.push_back(to_json(record));
    }
    live->answer(encode_reply(live->id(), with_epoch(context, {{"live", std::move(current)},
                                                               {"history", std::move(history)}})));
  });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Routing call) {
  context.queries.post(live, [&context, live, call] {
    const RouterStats total = context.options.engine->stats().router;
    const RouterStats counted = context.routing.since_reset(total);
    const auto count = static_cast<int64_t>(counted.layers.size());
    if (call.layer && *call.layer >= context.options.model_config().num_layers) {
      return live->on_error(Status(Code::kNotFound,
                                   fmt::format("routing.layer: {} (expected 0 to {})", *call.layer,
                                               context.options.model_config().num_layers - 1),
                                   "leave `layer` out to see all"));
    }
    Json layers = Json::array();
    for (int64_t i = 0; i < count; ++i) {
      if (call.layer && *call.layer != i) continue;
      layers.push_back(to_json(counted.layers[static_cast<size_t>(i)], i));
    }
    live->answer(encode_reply(live->id(), with_epoch(context, {{"since", context.routing.since()},
                                                               {"layers", std::move(layers)}})));
    if (call.reset) context.routing.reset(total);
  });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Stats) {
  context.queries.post(live, [&context, live] {
    const EngineStats stats = context.options.engine->stats();
    Json out =
        with_epoch(context, {{"engine", to_json(stats)},
                             {"server", server_stats(context)},
                             {"libraries", to_json(context.options.registry->library_stats())}});
    if (stats.adapters) out["adapters"] = to_json(*stats.adapters);
    if (context.options.memory) out["memory"] = to_json(context.options.memory->account());
    live->answer(encode_reply(live->id(), out));
  });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Audit call) {
  context.queries.post(live, [&context, live, call] {
    auto entries =
        context.options.audit->read(call.since.value_or(0), static_cast<size_t>(call.limit));
    if (!entries.ok()) return live->on_error(entries.status());
    Json list = Json::array();
    for (Json& entry : *entries) list.push_back(std::move(entry));
    live->answer(encode_reply(live->id(), {{"entries", std::move(list)}}));
  });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Usage call) {
  context.queries.post(live, [&context, live, call] {
    const auto rows =
        context.options.meters.usage->read(call.since.value_or(0), static_cast<size_t>(call.limit));
    if (!rows.ok()) return live->on_error(rows.status());
    Json list = Json::array();
    for (const auto& [key, sum] : *rows) list.push_back(to_json(key, sum));
    live->answer(encode_reply(live->id(), {{"rows", std::move(list)}}));
  });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Drain call) {
  if (!context.draining.exchange(true)) {
    log::info("drain_requested", {});
    if (context.options.on_drain) context.options.on_drain();
  }
  const milliseconds timeout(call.timeout_ms.value_or(kDefaultDrainMs));
  context.drains.post(live, [&context, live, timeout] { drain_engine(context, live, timeout); });
}

void handle(CallContext& context, std::shared_ptr<Live> live, wire::Shutdown) {
  log::info("shutdown_requested", {});
  live->answer(encode_reply(live->id(), with_epoch(context, Json::object())));
  // From a worker, so that the answer is on its way before the daemon begins to end.
  context.queries.post(std::move(live), [&context] {
    if (context.options.on_shutdown) context.options.on_shutdown();
  });
}

}  // namespace chimera
