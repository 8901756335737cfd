// ZeroMQ endpoints as a deployment may name them.
//
// Thread safety: free function, from any thread.
#pragma once

#include <string>

#include "base/status.h"

namespace chimera {

/// Checks an endpoint and makes a relative ipc path absolute (from `base_dir`). Accepted are
/// `ipc://PATH` of at most 107 bytes (sun_path) and `tcp://ADDRESS:PORT` with an address in
/// numbers, `localhost` or `*`. The message reads "found X (expected Y)".
Result<std::string> check_endpoint(const std::string& endpoint, const std::string& base_dir);

/// Whether it is TCP on the loopback interface, which only users of this machine reach.
bool is_loopback_endpoint(const std::string& endpoint);

}  // namespace chimera
