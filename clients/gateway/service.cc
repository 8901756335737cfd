#include "clients/gateway/service.h"

#include <fmt/format.h>

#include <array>

#include "base/json/writer.h"
#include "base/log/log.h"
#include "base/quote.h"
#include "clients/gateway/anthropic/message.h"
#include "clients/gateway/native/calls.h"
#include "clients/gateway/openai/completion.h"
#include "clients/gateway/openai/embedding.h"
#include "clients/gateway/openai/models.h"
#include "clients/gateway/openai/response.h"
#include "clients/gateway/page/page.h"
#include "clients/gateway/run/run.h"
#include "clients/gateway/watched.h"

namespace chimera::gateway {
namespace {

Response refusal(unsigned status, std::string_view path, std::string_view problem) {
  std::string code = "invalid_argument";
  if (status == 408) code = "deadline_exceeded";
  if (status == 413 || status == 431) code = "too_large";
  if (status == 500) code = "internal";
  if (status == 503) code = "unavailable";
  return error_response(shape_of(path), {status, code, fmt::format("request: {}", problem)});
}

client::Options endpoints(const GatewayConfig& config) {
  return {.serve = config.daemon.serve,
          .control = config.daemon.control,
          .key = config.daemon.key,
          .server_key = config.daemon.server_key};
}

/// As OpenTelemetry's conventions call it.
const char* operation_of(std::string_view path) {
  if (path == "/v1/completions") return "text_completion";
  return path == "/v1/embeddings" ? "embeddings" : "chat";
}

constexpr std::string_view kModels = "/v1/models";

ApiError no_slot() {
  return {429, "resource_exhausted", "streams: as many in progress as the key may have at once",
          "wait for one of them to end"};
}

}  // namespace

std::variant<const Service::Door*, ApiError> Service::door_of(const Request& request) const {
  static constexpr std::array kDoors = {
      Door{"/healthz", "GET", std::nullopt, &Service::alive},
      Door{"/readyz", "GET", std::nullopt, &Service::ready},
      Door{"/metrics", "GET", Right::kObserve, &Service::metrics},
      Door{"/v1/models", "GET", Right::kGenerate, &Service::models},
      Door{"/v1/models/", "GET", Right::kGenerate, &Service::models},
      Door{"/v1/chat/completions", "POST", Right::kGenerate, &Service::complete},
      Door{"/v1/completions", "POST", Right::kGenerate, &Service::complete},
      Door{"/v1/responses", "POST", Right::kGenerate, &Service::complete},
      Door{"/v1/embeddings", "POST", Right::kGenerate, &Service::complete},
      Door{"/v1/messages", "POST", Right::kGenerate, &Service::complete},
  };
  static constexpr std::array kNative = {
      Door{"", "", Right::kGenerate, &Service::native_call},
      Door{"", "", Right::kObserve, &Service::native_call},
      Door{"", "", Right::kChange, &Service::native_call},
  };
  const std::string_view method =
      request.method == "HEAD" ? "GET" : std::string_view(request.method);
  if (request.path.starts_with(native::kRoot)) {
    auto right = native::right_of(method, request.path);
    if (auto* error = std::get_if<ApiError>(&right)) return std::move(*error);
    return &kNative[static_cast<size_t>(std::get<Right>(right))];
  }
  static constexpr Door kPage{"", "GET", std::nullopt, &Service::console};
  if (page::has(request.path)) {
    if (method == kPage.method) return &kPage;
    return ApiError{405, "invalid_argument",
                    fmt::format("{}: {} (expected GET)", request.path, request.method)};
  }
  for (const Door& door : kDoors) {
    const bool below = door.path.ends_with('/') && request.path.starts_with(door.path);
    if (door.path != request.path && !below) continue;
    if (door.method == method) return &door;
    return ApiError{405, "invalid_argument",
                    fmt::format("{}: {} (expected {})", door.path, request.method, door.method)};
  }
  return ApiError{404, "not_found", fmt::format("{}: not found", quote(request.path, 80)),
                  "docs/gateway.md lists the paths"};
}

/// Of a fixed set, so that nobody makes up labels.
std::string Service::route_of(const std::variant<const Door*, ApiError>& door,
                              const Request& request) {
  const auto* found = std::get_if<const Door*>(&door);
  if (found == nullptr) return "unmatched";
  const std::string_view path = (*found)->path;
  if (!path.empty()) return std::string(path) + (path.ends_with('/') ? "{id}" : "");
  if (page::has(request.path)) return "console";
  return request.path;  // a call of the native API is one of those that there are
}

Service::Service(const GatewayConfig& config, Keys keys, Server& server)
    : config_(config),
      server_(server),
      keys_(std::move(keys)),
      dialects_(config.dialect),
      daemon_(std::make_unique<Upstream>(
          endpoints(config),
          [&server](std::function<void()> work) { server.post(std::move(work)); },
          [&server](std::chrono::milliseconds delay, std::function<void()> work) {
            server.after(delay, std::move(work));
          })),
      events_(std::make_shared<native::Events>(*daemon_)) {
  if (!config.anonymous) return;
  anonymous_ = std::make_shared<const Principal>(Principal{.name = "anonymous", .generate = true});
}

HttpHandlers Service::handlers() {
  return {.admit = [this](const Request& head) { return admit(head); },
          .handle = [this](std::shared_ptr<Exchange> exchange) { handle(std::move(exchange)); },
          .refuse =
              [this](unsigned status, std::string_view path, std::string_view problem) {
                metrics_->http("_OTHER", "refused", status, 0.0);
                return refusal(status, path, problem);
              }};
}

void Service::set_keys(Keys keys) {
  server_.post([this, keys = std::move(keys)]() mutable {
    keys_ = std::move(keys);
    events_->keep([this](const Request& request) {
      return !check_right(request, Right::kObserve).has_value();
    });
  });
}

void Service::drain() {
  server_.post([this] {
    draining_ = true;
    events_->end();
  });
}

// ---- answers ---------------------------------------------------------------------------------

void Service::handle(std::shared_ptr<Exchange> exchange) {
  const auto door = door_of(exchange->request());
  exchange = watched(exchange, metrics_, route_of(door, exchange->request()));
  const Request& request = exchange->request();
  if (const auto* problem = std::get_if<ApiError>(&door)) {
    return exchange->respond(error_response(shape_of(request.path), *problem));
  }
  log::debug("request", {{"peer", request.peer},
                         {"method", request.method},
                         {"path", request.path},
                         {"traceparent", request.traceparent}});
  (this->*std::get<const Door*>(door)->answer)(std::move(exchange));
}

std::variant<Job, ApiError> Service::read_job(const Request& request) const {
  if (request.path == "/v1/messages") {
    auto read = anthropic::read_message(request, config_.models);
    if (auto* error = std::get_if<ApiError>(&read)) return std::move(*error);
    return anthropic::job_of(std::get<anthropic::Message>(std::move(read)));
  }
  if (request.path == "/v1/responses") {
    auto read = openai::read_response_request(request, config_.models);
    if (auto* error = std::get_if<ApiError>(&read)) return std::move(*error);
    return openai::job_of(std::get<openai::ResponseRequest>(std::move(read)));
  }
  if (request.path == "/v1/embeddings") {
    auto read = openai::read_embedding_request(request, config_.models);
    if (auto* error = std::get_if<ApiError>(&read)) return std::move(*error);
    return openai::job_of(std::get<openai::EmbeddingRequest>(std::move(read)));
  }
  const auto api = request.path == "/v1/completions" ? openai::Api::kText : openai::Api::kChat;
  auto read = openai::read_completion(api, request, config_.models);
  if (auto* error = std::get_if<ApiError>(&read)) return std::move(*error);
  return openai::job_of(std::get<openai::Completion>(std::move(read)));
}

void Service::complete(std::shared_ptr<Exchange> exchange) {
  const Request& request = exchange->request();
  const ErrorShape shape = shape_of(request.path);
  auto job = read_job(request);
  if (const auto* error = std::get_if<ApiError>(&job)) {
    return exchange->respond(error_response(shape, *error));
  }
  // Keys may have changed since the head of the request was admitted.
  if (const auto problem = check_right(request, Right::kGenerate)) {
    return exchange->respond(error_response(shape, *problem));
  }
  Caller caller = caller_of(request);
  const auto principal = principal_of(request);
  caller.slot = take_slot(*principal);
  if (caller.slot == nullptr) {
    return exchange->respond(error_response(shape, no_slot()));
  }
  auto& asked = std::get<Job>(job);
  asked.watch = metrics_->watch(
      operation_of(request.path),
      config_.models.aliases.contains(asked.model) ? asked.model : config_.models.name,
      principal->name);
  asked.prepare = [this](Job& of_run, Job::Ready ready) {
    dialects_.prepare(*daemon_, of_run, std::move(ready));
  };
  run(std::move(exchange), std::move(caller), *daemon_, std::move(asked));
}

void Service::models(std::shared_ptr<Exchange> exchange) {
  const Request& request = exchange->request();
  std::string id;
  if (request.path.size() > kModels.size()) {
    id = percent_decode(request.path.substr(kModels.size() + 1)).value_or("?");
  }
  Caller caller = caller_of(request);
  openai::list_models(std::move(exchange), std::move(id), std::move(caller), *daemon_,
                      config_.models);
}

void Service::native_call(std::shared_ptr<Exchange> exchange) {
  const Request& request = exchange->request();
  if (request.path == native::kEvents) return listen(std::move(exchange));
  auto read = native::read_call(request);
  if (const auto* problem = std::get_if<ApiError>(&read)) {
    return exchange->respond(error_response(ErrorShape::kNative, *problem));
  }
  const auto right = native::right_of(request.method, request.path);
  const auto principal = principal_of(request);
  if (const auto* modules = modules_of(std::get<wire::Call>(read));
      modules != nullptr && principal != nullptr && principal->modules) {
    // Everything but what is named would count as permitted otherwise.
    auto problem = check_allowed(*modules, *principal->modules);
    if (!problem && !modules->only) {
      problem = ApiError{403, "permission_denied",
                         "modules.only: missing (expected those that the key may use)"};
    }
    if (problem) return exchange->respond(error_response(ErrorShape::kNative, *problem));
  }
  if (right.index() == 0 && std::get<Right>(right) == Right::kChange && principal != nullptr) {
    log::info("change", {{"principal", principal->name}, {"path", request.path}});
  }
  const std::string trace = request.traceparent;
  const auto answer = [exchange = std::move(exchange)](client::Result<client::Event> event) {
    if (event.ok() && event->is_progress()) return;  // HTTP has one answer
    if (!event.ok() || event->is_error()) {
      const wire::Error error = event.ok() ? event->error() : event.error();
      return exchange->respond(error_response(ErrorShape::kNative, from_wire(error)));
    }
    exchange->respond(
        {.body = native::answer_body(event->body), .headers = {{"cache-control", "no-store"}}});
  };
  daemon_->send(std::get<wire::Call>(read), answer, trace);
}

void Service::listen(std::shared_ptr<Exchange> exchange) {
  const auto refuse = [&exchange](const ApiError& problem) {
    exchange->respond(error_response(ErrorShape::kNative, problem));
  };
  const Request& request = exchange->request();
  if (request.method != "GET") {
    return refuse(
        {405, "invalid_argument", fmt::format("{}: HEAD (expected GET)", native::kEvents)});
  }
  // Keys may have changed since the head of the request was admitted.
  if (const auto problem = check_right(request, Right::kObserve)) return refuse(*problem);
  auto slot = take_slot(*principal_of(request));
  if (slot == nullptr) return refuse(no_slot());
  events_->listen(std::move(exchange), std::move(slot));
}

void Service::console(std::shared_ptr<Exchange> exchange) {
  Response response = page::answer(exchange->request());
  exchange->respond(std::move(response));
}

void Service::alive(std::shared_ptr<Exchange> exchange) {
  exchange->respond({.body = "{\"status\":\"ok\"}\n"});
}

void Service::ready(std::shared_ptr<Exchange> exchange) {
  const auto refuse = [](Exchange& to, std::string why) {
    to.respond(error_response(ErrorShape::kNative, {503, "unavailable", std::move(why)}));
  };
  if (draining_) return refuse(*exchange, "gateway: stopping");
  daemon_->send(wire::Health{},
                [exchange = std::move(exchange), refuse](client::Result<client::Event> event) {
                  if (!event.ok()) return refuse(*exchange, event.error().message);
                  const std::string status = event->body.value("status", "");
                  if (status != "ok") return refuse(*exchange, "daemon: " + status);
                  exchange->respond({.body = "{\"status\":\"ok\"}\n"});
                });
}

void Service::metrics(std::shared_ptr<Exchange> exchange) {
  metrics_->connections(server_.connections());
  const auto state = std::make_shared<DaemonState>();
  const auto left = std::make_shared<int>(3);
  const auto took = [this, exchange, state, left](Json DaemonState::*member) {
    return [this, exchange, state, left, member](client::Result<client::Event> event) {
      if (event.ok() && !event->is_error()) (*state).*member = event->body;
      if (--*left > 0) return;
      exchange->respond({.content_type = "text/plain; version=0.0.4; charset=utf-8",
                         .body = metrics_->text(*state),
                         .headers = {{"cache-control", "no-store"}}});
    };
  };
  daemon_->send(wire::Stats{}, took(&DaemonState::stats));
  daemon_->send(wire::Modules{}, took(&DaemonState::modules));
  daemon_->send(wire::Routing{}, took(&DaemonState::routing));
}

}  // namespace chimera::gateway
