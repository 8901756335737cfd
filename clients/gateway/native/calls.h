// /chimera/v1/CALL: the calls of chimera/1 that are answered once, over HTTP. GET for what only
// looks, with the fields in the query; POST for the rest, with the fields as a JSON object.
//
// Thread safety: pure functions.
#pragma once

#include <optional>
#include <string_view>
#include <variant>

#include "base/json/json.h"
#include "clients/gateway/access/keys.h"
#include "clients/gateway/api/api_error.h"
#include "clients/gateway/http/message.h"
#include "clients/wire/protocol.h"

namespace chimera::gateway::native {

inline constexpr std::string_view kRoot = "/chimera/v1/";
inline constexpr std::string_view kEvents = "/chimera/v1/events";

/// The right that a request needs; 404 and 405 for what there is not.
std::variant<Right, ApiError> right_of(std::string_view method, std::string_view path);

/// The call of the wire. REQUIRES: right_of() found a right.
std::variant<wire::Call, ApiError> read_call(const Request& request);

/// A `done` of the wire as the body of the answer.
std::string answer_body(const Json& done);

}  // namespace chimera::gateway::native
