// The head of a response as bytes.
//
// Thread safety: pure function but for the date.
#pragma once

#include <string>

#include "clients/gateway/http/message.h"

namespace chimera::gateway {

/// How a client learns where a body ends.
enum class BodyEnd : uint8_t { kLength, kChunks, kConnection };

/// Status line and headers, those of `response` and then `extra`, with the empty line.
std::string response_head(const Response& response, BodyEnd end, bool close, const Headers& extra);

}  // namespace chimera::gateway
