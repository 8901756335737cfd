#include "clients/gateway/api/api_error.h"

#include <fmt/format.h>

#include <array>

#include "base/json/writer.h"

namespace chimera::gateway {
namespace {

struct CodeStatus {
  std::string_view code;
  unsigned status;
};
// 5xx is for what another try may cure: clients repeat those by themselves.
constexpr std::array<CodeStatus, 12> kStatuses{{
    {"invalid_argument", 400},
    {"permission_denied", 403},
    {"not_found", 404},
    {"deadline_exceeded", 408},
    {"already_exists", 409},
    {"failed_precondition", 422},
    {"data_corrupt", 422},
    {"unimplemented", 422},
    {"resource_exhausted", 429},
    {"cancelled", 499},
    {"internal", 500},
    {"unavailable", 503},
}};

std::string_view openai_type(unsigned status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 408:
      return "timeout_error";
    case 429:
      return "rate_limit_error";
    default:
      return status >= 500 ? "server_error" : "invalid_request_error";
  }
}

std::string_view anthropic_type(unsigned status) {
  switch (status) {
    case 401:
      return "authentication_error";
    case 403:
      return "permission_error";
    case 404:
      return "not_found_error";
    case 408:
      return "timeout_error";
    case 413:
      return "request_too_large";
    case 429:
      return "rate_limit_error";
    case 503:
      return "overloaded_error";
    default:
      return status >= 500 ? "api_error" : "invalid_request_error";
  }
}

Json body_of(ErrorShape shape, const ApiError& error) {
  switch (shape) {
    case ErrorShape::kOpenAi:
      return {{"error",
               {{"message", error.text()},
                {"type", openai_type(error.status)},
                {"param", error.param.empty() ? Json() : Json(error.param)},
                {"code", error.code}}}};
    case ErrorShape::kAnthropic:
      return {{"type", "error"},
              {"error", {{"type", anthropic_type(error.status)}, {"message", error.text()}}}};
    case ErrorShape::kNative:
      return {{"error", {{"code", error.code}, {"message", error.message}, {"hint", error.hint}}}};
  }
  return {};
}

}  // namespace

std::string ApiError::text() const {
  return hint.empty() ? message : fmt::format("{}. {}", message, hint);
}

ApiError from_wire(const wire::Error& error) {
  unsigned status = 500;
  for (const CodeStatus& entry : kStatuses) {
    if (entry.code == error.code) status = entry.status;
  }
  return {status, error.code, error.message, error.hint};
}

ApiError bad_field(std::string_view param, std::string_view found_and_expected, std::string hint) {
  return {400, "invalid_argument", fmt::format("{}: {}", param, found_and_expected),
          std::move(hint), std::string(param)};
}

ApiError unsupported(std::string_view param, std::string hint) {
  return {400, "unsupported_parameter", fmt::format("{}: not supported", param), std::move(hint),
          std::string(param)};
}

ErrorShape shape_of(std::string_view path) {
  if (path.starts_with("/v1/messages")) return ErrorShape::kAnthropic;
  return path.starts_with("/v1/") ? ErrorShape::kOpenAi : ErrorShape::kNative;
}

std::string error_body(ErrorShape shape, const ApiError& error) {
  return write_json(body_of(shape, error));
}

Response error_response(ErrorShape shape, const ApiError& error) {
  Response response{.status = error.status, .body = error_body(shape, error) + "\n"};
  // Queues empty within seconds, and a daemon that restarts is back as soon.
  if (error.status == 429 || error.status == 503) response.headers.emplace_back("retry-after", "1");
  if (error.status == 401) response.headers.emplace_back("www-authenticate", "Bearer");
  return response;
}

}  // namespace chimera::gateway
