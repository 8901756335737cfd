// What went wrong, before it takes the shape of an API.
//
// Thread safety: values and pure functions.
#pragma once

#include <string>
#include <string_view>

#include "clients/gateway/http/message.h"
#include "clients/wire/protocol.h"

namespace chimera::gateway {

struct ApiError {
  unsigned status = 400;  // of HTTP
  std::string code;       // of chimera/1, or what an API calls it ("invalid_api_key")
  std::string message;    // "WHAT: FOUND (expected …)"
  std::string hint{};
  std::string param{};  // the field of the request that it is about, if any

  /// Message and hint in one sentence after the other.
  std::string text() const;
};

/// What the daemon answered, or its absence. Codes map to statuses one to one, see docs/gateway.md.
ApiError from_wire(const wire::Error& error);

/// 400 about a field of a request.
ApiError bad_field(std::string_view param, std::string_view found_and_expected,
                   std::string hint = {});
/// 400: `param` is known, and not supported.
ApiError unsupported(std::string_view param, std::string hint = {});

/// APIs differ in how they tell of errors.
enum class ErrorShape : uint8_t { kOpenAi, kAnthropic, kNative };
/// The shape that clients of `path` expect.
ErrorShape shape_of(std::string_view path);

/// The body alone, one JSON object.
std::string error_body(ErrorShape shape, const ApiError& error);
/// With status and headers (Retry-After, WWW-Authenticate).
Response error_response(ErrorShape shape, const ApiError& error);

}  // namespace chimera::gateway
