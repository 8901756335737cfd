#include "clients/gateway/run/failure.h"

#include <string_view>

#include "base/quote.h"

namespace chimera::gateway {
namespace {

constexpr std::string_view kSchema = "constraint.json_schema", kOnly = "modules.only: ";

/// Whether `message` quotes one of the modules that `model` names: demo:legal+bio.
bool quotes_module_of(std::string_view message, std::string_view model) {
  const size_t begin = message.find('"');
  const size_t end = begin == message.npos ? message.npos : message.find('"', begin + 1);
  const size_t colon = model.find(':');
  if (end == message.npos || colon == model.npos) return false;
  const std::string names = "+" + std::string(model.substr(colon + 1)) + "+";
  const std::string name = "+" + std::string(message.substr(begin + 1, end - begin - 1)) + "+";
  return names.find(name) != names.npos;
}

}  // namespace

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

ApiError told_of_request(ApiError error, const std::string& model, const std::string& schema_name) {
  const std::string_view said = error.message;
  if (said.starts_with(kOnly) && error.code == "not_found" && quotes_module_of(said, model)) {
    return {error.status, "model_not_found",
            "model: " + quote(model) + ": " + std::string(said.substr(kOnly.size())),
            "GET /v1/models lists what there is", "model"};
  }
  if (said.starts_with(kSchema) && !schema_name.empty()) {
    error.message = schema_name + std::string(said.substr(kSchema.size()));
    error.param = schema_name.substr(0, schema_name.rfind(".schema"));
  }
  return error;
}

}  // namespace chimera::gateway
