// Calls that did not end as they were meant to, as errors of their request.
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <optional>
#include <string>

#include "clients/gateway/api/api_error.h"

namespace chimera::gateway {

/// Ends of a sequence that are not what the client asked for.
std::optional<ApiError> failure_of(const std::string& finish_reason);

/// What is wrong with one of several inputs, told of that one.
ApiError told_of_choice(ApiError error, const std::string& name, size_t choice);

/// What the daemon says of fields of the wire, told of those of the request that they were made of:
/// `model` names modules, and what `schema_name` is of the API is a constraint there.
ApiError told_of_request(ApiError error, const std::string& model, const std::string& schema_name);

}  // namespace chimera::gateway
