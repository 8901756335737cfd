// ZeroMQ endpoints as a deployment may name them.
//
// Thread safety: free function, from any thread.
#pragma once

#include <string>

#include "base/status.h"

namespace chimera {

/// Checks an endpoint and makes a relative ipc path absolute (from `base_dir`). Accepted are
/// `ipc://PATH` of at most 107 bytes (sun_path) and TCP on the loopback interface with a port:
/// the wire is neither encrypted nor authenticated, so it must not leave the machine. The message
/// reads "found X (expected Y)".
Result<std::string> check_endpoint(const std::string& endpoint, const std::string& base_dir);

}  // namespace chimera
