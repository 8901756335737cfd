// Service: who may ask.
#include <fmt/format.h>

#include "base/quote.h"
#include "clients/gateway/service.h"

namespace chimera::gateway {
namespace {

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

}  // namespace

Admission Service::admit(const Request& head) {
  Admission admission;
  admission.headers = {{"x-content-type-options", "nosniff"}};
  if (const auto problem = check(head)) {
    admission.refusal = error_response(shape_of(head.path), *problem);
    metrics_->http("_OTHER", "refused", problem->status, 0.0);
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
  if (auto found = key ? keys_.find(*key) : nullptr) return found;
  return anonymous_;
}

Caller Service::caller_of(const Request& request) const {
  const auto principal = principal_of(request);
  return {.modules = principal == nullptr ? std::nullopt : principal->modules,
          .traceparent = request.traceparent};
}

std::shared_ptr<void> Service::take_slot(const Principal& principal) {
  auto& count = streams_[principal.name];
  if (count == nullptr) count = std::make_shared<int64_t>(0);
  if (principal.streams && *count >= *principal.streams) return nullptr;
  ++*count;
  return {static_cast<void*>(count.get()), [count](void*) { --*count; }};
}

}  // namespace chimera::gateway
