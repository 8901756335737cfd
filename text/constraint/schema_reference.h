// "$ref" of a schema: to places of the same document, as JSON pointers (RFC 6901).
//
// Thread safety: pure functions.
#pragma once

#include <string>

#include "base/json/json.h"

namespace chimera::constraint {

/// What `schema`, a part of `document`, stands for once its references are followed; null and a
/// `problem` when one leads nowhere, in a circle, or has more than annotations beside it.
const Json* follow_references(const Json& document, const Json& schema, std::string& problem);

}  // namespace chimera::constraint
