// Whose a fault is, for handlers of signals that take them before the guard of mapped files does
// (mapping_guard.h).
//
// Thread safety: async-signal-safe.
#pragma once

namespace chimera {

/// Whether the guard takes care of a SIGBUS at `address`.
bool mapping_guards(const void* address);

}  // namespace chimera
