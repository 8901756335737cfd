#include "clients/gateway/run/failure.h"

namespace chimera::gateway {

std::optional<ApiError> failure_of(const std::string& finish_reason) {
  if (finish_reason == "deadline") {
    return from_wire({"deadline_exceeded", "request: its deadline_ms passed", ""});
  }
  if (finish_reason == "cancelled") {
    return from_wire({"cancelled", "request: cancelled by an operator", ""});
  }
  if (finish_reason == "revoked") {
    return from_wire(
        {"failed_precondition", "modules: revoked while they answered", "ask again with others"});
  }
  return std::nullopt;
}

ApiError told_of_choice(ApiError error, const std::string& name, size_t choice) {
  if (name.empty() || error.code != "invalid_argument") return error;
  error.message = name + "[" + std::to_string(choice) + "]: " + error.message;
  error.param = name;
  return error;
}

}  // namespace chimera::gateway
