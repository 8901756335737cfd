// The trace that a request belongs to (W3C Trace Context).
//
// Thread safety: pure function.
#pragma once

#include <string>

#include "clients/gateway/http/message.h"

namespace chimera::gateway {

/// `traceparent` of what the gateway does for a request: in the trace that its header names, and as
/// a span of its own; in a new trace, which nobody records, when there is no header, more than one,
/// or one that is invalid.
std::string trace_of(const Headers& headers);

}  // namespace chimera::gateway
