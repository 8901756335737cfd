// Where the daemon and its clients meet when nobody said otherwise (design §7).
//
// Both sides compute the addresses with these functions, so they cannot drift apart. Nothing here
// touches the file system: creating and checking the directory is the daemon's business.
//
// Thread safety: free functions; they read the environment, so do not race with setenv.
#pragma once

#include <string>
#include <string_view>

namespace chimera::wire {

/// $XDG_RUNTIME_DIR/chimera when that variable holds an absolute path, else /tmp/chimera-UID.
/// /tmp rather than $TMPDIR: two terminals must arrive at the same place.
std::string runtime_dir();

/// "ipc://" + runtime_dir() + "/serve.sock" and "/control.sock".
std::string default_serve_endpoint();
std::string default_control_endpoint();

/// File path of an ipc endpoint; empty for any other transport.
std::string_view ipc_path(std::string_view endpoint);

/// Longest path an ipc endpoint may have: sun_path of sockaddr_un, less its final NUL.
inline constexpr size_t kMaxIpcPath = 107;

}  // namespace chimera::wire
