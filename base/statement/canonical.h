// One text for each JSON value (RFC 8785, "JSON Canonicalization Scheme"): members in the order of
// their names' UTF-16 code units, no blanks, numbers as ECMAScript writes them.
//
// Thread safety: pure function.
#pragma once

#include <string>

#include "base/json/json.h"

namespace chimera {

/// Integers keep all their digits, which RFC 8785 leaves to the application beyond 2^53.
/// REQUIRES: numbers are finite.
std::string canonical_json(const Json& value);

}  // namespace chimera
