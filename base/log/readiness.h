// Tells a service manager that the service serves: READY=1 to $NOTIFY_SOCKET, as sd_notify(3) has
// it.
//
// One datagram, written here: libsystemd would bring five compression libraries into the daemon.
//
// Thread safety: reads the environment, so do not race with setenv; otherwise from any thread.
#pragma once

namespace chimera {

/// Does nothing where no manager asked for it. One that cannot be told is a warning in the log: it
/// ends the service when its patience does.
void tell_ready();

}  // namespace chimera
