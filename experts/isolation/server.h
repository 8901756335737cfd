// What chimera-plugin-host does: takes one library from the daemon, loads it like the daemon would,
// locks itself down and answers calls until it is told to stop or the daemon is gone.
//
// Two threads beside the compute pool: one in the control role (the socket), one that runs forward
// passes. There are no locks between daemon and host.
//
// Thread safety: by the main thread of chimera-plugin-host, once.
#pragma once

#include <sys/types.h>

namespace chimera {

/// The exit status. `parent`: the daemon's process id.
int run_plugin_host(pid_t parent);

}  // namespace chimera
