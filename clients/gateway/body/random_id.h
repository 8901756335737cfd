// Names that the gateway gives to what it answers.
//
// Thread safety: any thread.
#pragma once

#include <string>
#include <string_view>

#include "clients/gateway/dialect/dialect.h"

namespace chimera::gateway {

/// `prefix` and 16 hexadecimal digits.
std::string random_id(std::string_view prefix);
/// Of a call of a tool. Mistral's templates take nine letters and digits, and nothing else.
std::string new_call_id(Dialect dialect, std::string_view prefix = "call_");

}  // namespace chimera::gateway
