// Whether sockets and directories could be made where a deployment wants them. Nothing is made.
//
// Thread safety: free functions, from any thread.
#pragma once

#include <string>

#include "base/status.h"

namespace chimera {

/// ok when `path` is a directory that this process may write to, or when it could make one there.
/// failed_precondition or permission_denied name what is in the way.
Status check_directory_place(const std::string& path);

/// The same for the socket of an ipc endpoint (another file in its place is in the way) and for the
/// port of a tcp endpoint. One in use is no problem here: it may be by the daemon that the
/// deployment is of.
Status check_endpoint_place(const std::string& endpoint);

}  // namespace chimera
