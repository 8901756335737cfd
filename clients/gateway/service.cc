#include "clients/gateway/service.h"

#include <fmt/format.h>

#include <array>

#include "base/json/writer.h"
#include "base/log/log.h"
#include "base/quote.h"
#include "clients/gateway/native/calls.h"
#include "clients/gateway/openai/complete.h"
#include "clients/gateway/openai/models.h"

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

/// A page elsewhere cannot send JSON without asking first, and a slip of -d in curl is told.
std::optional<ApiError> check_content(const Request& head) {
  if (head.method != "POST") return std::nullopt;
  const std::string* type = head.header("content-type");
  const std::string_view given = type == nullptr ? std::string_view() : *type;
  if (given.substr(0, given.find(';')) == "application/json") return std::nullopt;
  return ApiError{415, "invalid_argument",
                  fmt::format("content-type: {} (expected application/json)", quote(given)),
                  "curl: -H 'Content-Type: application/json'"};
}

client::Options endpoints(const GatewayConfig& config) {
  return {.serve = config.daemon.serve,
          .control = config.daemon.control,
          .key = config.daemon.key,
          .server_key = config.daemon.server_key};
}

constexpr std::string_view kModels = "/v1/models";

}  // namespace

struct Service::Door {
  std::string_view path;  // "/v1/models/" leads to all below it
  std::string_view method;
  std::optional<Right> right;  // none: for everybody
  void (Service::*answer)(std::shared_ptr<Exchange>);
};

std::variant<const Service::Door*, ApiError> Service::door_of(const Request& request) const {
  static constexpr std::array kDoors = {
      Door{"/healthz", "GET", std::nullopt, &Service::alive},
      Door{"/readyz", "GET", std::nullopt, &Service::ready},
      Door{"/v1/models", "GET", Right::kGenerate, &Service::models},
      Door{"/v1/models/", "GET", Right::kGenerate, &Service::models},
      Door{"/v1/chat/completions", "POST", Right::kGenerate, &Service::complete},
      Door{"/v1/completions", "POST", Right::kGenerate, &Service::complete},
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

Service::Service(const GatewayConfig& config, Keys keys, Server& server)
    : config_(config),
      server_(server),
      keys_(std::move(keys)),
      daemon_(std::make_unique<Upstream>(endpoints(config), [&server](std::function<void()> work) {
        server.post(std::move(work));
      })) {
  if (!config.anonymous) return;
  anonymous_ = std::make_shared<const Principal>(Principal{.name = "anonymous", .generate = true});
}

HttpHandlers Service::handlers() {
  return {.admit = [this](const Request& head) { return admit(head); },
          .handle = [this](std::shared_ptr<Exchange> exchange) { handle(std::move(exchange)); },
          .refuse = &refusal};
}

void Service::set_keys(Keys keys) {
  server_.post([this, keys = std::move(keys)]() mutable { keys_ = std::move(keys); });
}

void Service::drain() {
  server_.post([this] { draining_ = true; });
}

// ---- who may ask
// ---------------------------------------------------------------------------------

Admission Service::admit(const Request& head) {
  Admission admission;
  admission.headers = {{"x-content-type-options", "nosniff"}};
  if (const auto problem = check(head)) {
    admission.refusal = error_response(shape_of(head.path), *problem);
  } else {
    Headers cors = cors_headers(head, config_.browser);
    const bool asked_first = head.method == "OPTIONS";
    if (asked_first) admission.refusal = Response{.status = 204};
    admission.headers.insert(admission.headers.end(), cors.begin(), cors.end());
  }
  return admission;
}

std::optional<ApiError> Service::check(const Request& head) const {
  if (auto problem = check_host(head, config_.browser)) return problem;
  if (auto problem = check_origin(head, config_.browser)) return problem;
  if (head.method == "OPTIONS" && head.header("origin") != nullptr) return std::nullopt;
  const auto door = door_of(head);
  if (const auto* problem = std::get_if<ApiError>(&door)) return *problem;
  const auto right = std::get<const Door*>(door)->right;
  if (right) {
    if (auto problem = check_right(head, *right)) return problem;
  }
  return check_content(head);
}

std::optional<ApiError> Service::check_right(const Request& head, Right right) const {
  const auto principal = principal_of(head);
  if (principal == nullptr) {
    const bool given = presented_key(head).has_value();
    return ApiError{
        401, "invalid_api_key",
        given ? "key: nobody has this one" : "key: missing (expected Authorization: Bearer KEY)",
        "the admin's is in the file that the gateway names at its start"};
  }
  if (principal->may(right)) return std::nullopt;
  return ApiError{403, "permission_denied",
                  fmt::format("{}: not permitted to {} (expected a key with the right {})",
                              head.path, principal->name, kRightNames.name(right))};
}

std::shared_ptr<const Principal> Service::principal_of(const Request& request) const {
  const auto key = presented_key(request);
  // OpenAI's clients always send some key, and people without one write anything there.
  if (const auto found = key ? keys_.find(*key) : nullptr) return found;
  return anonymous_;
}

Caller Service::caller_of(const Request& request) const {
  const auto principal = principal_of(request);
  return {.modules = principal == nullptr ? std::nullopt : principal->modules};
}

std::shared_ptr<void> Service::take_slot(const Principal& principal) {
  auto& count = streams_[principal.name];
  if (count == nullptr) count = std::make_shared<int64_t>(0);
  if (principal.streams && *count >= *principal.streams) return nullptr;
  ++*count;
  return {static_cast<void*>(count.get()), [count](void*) { --*count; }};
}

// ---- answers
// -------------------------------------------------------------------------------------

void Service::handle(std::shared_ptr<Exchange> exchange) {
  const Request& request = exchange->request();
  const auto door = door_of(request);
  if (const auto* problem = std::get_if<ApiError>(&door)) {
    return exchange->respond(error_response(shape_of(request.path), *problem));
  }
  log::debug("request",
             {{"peer", request.peer}, {"method", request.method}, {"path", request.path}});
  (this->*std::get<const Door*>(door)->answer)(std::move(exchange));
}

void Service::complete(std::shared_ptr<Exchange> exchange) {
  const Request& request = exchange->request();
  Caller caller = caller_of(request);
  const auto principal = principal_of(request);
  if (principal != nullptr) caller.slot = take_slot(*principal);
  if (caller.slot == nullptr) {
    return exchange->respond(error_response(
        ErrorShape::kOpenAi,
        {429, "resource_exhausted", "streams: as many in progress as the key may have at once",
         "wait for one of them to end"}));
  }
  const auto api = request.path == "/v1/completions" ? openai::Api::kText : openai::Api::kChat;
  openai::complete(api, std::move(exchange), std::move(caller), *daemon_, config_.models);
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
  auto read = native::read_call(request);
  if (const auto* problem = std::get_if<ApiError>(&read)) {
    return exchange->respond(error_response(ErrorShape::kNative, *problem));
  }
  const auto right = native::right_of(request.method, request.path);
  const auto principal = principal_of(request);
  if (const auto* score = std::get_if<wire::Score>(&std::get<wire::Call>(read));
      score != nullptr && principal != nullptr && principal->modules) {
    // Everything but what is named would count as permitted otherwise.
    auto problem = check_allowed(score->modules, *principal->modules);
    if (!problem && !score->modules.only) {
      problem = ApiError{403, "permission_denied",
                         "modules.only: missing (expected those that the key may use)"};
    }
    if (problem) return exchange->respond(error_response(ErrorShape::kNative, *problem));
  }
  if (right.index() == 0 && std::get<Right>(right) == Right::kChange && principal != nullptr) {
    log::info("change", {{"principal", principal->name}, {"path", request.path}});
  }
  daemon_->send(std::get<wire::Call>(read),
                [exchange = std::move(exchange)](client::Result<client::Event> event) {
                  if (!event.ok() || event->is_error()) {
                    const wire::Error error = event.ok() ? event->error() : event.error();
                    return exchange->respond(error_response(ErrorShape::kNative, from_wire(error)));
                  }
                  exchange->respond({.body = native::answer_body(event->body),
                                     .headers = {{"cache-control", "no-store"}}});
                });
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

}  // namespace chimera::gateway
