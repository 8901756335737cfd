// Whether an address may be bound: looked at before libzmq touches it.
//
// Thread safety: pure functions of the file system.
#pragma once

#include <string>

#include "base/status.h"

namespace chimera {

/// Refused: an ipc path where a daemon answers or something else than a socket lies, TCP beyond the
/// loopback interface unless peers prove their keys (`curve`), every other transport.
Status check_endpoint(const std::string& endpoint, bool curve);

}  // namespace chimera
