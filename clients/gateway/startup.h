// What chimera-gateway does before it serves: its keys, and what it tells of itself.
//
// Thread safety: free functions; print_new_key() and greet() write to standard output.
#pragma once

#include <cstdint>
#include <string>

#include "base/status.h"
#include "clients/gateway/config/config.h"

namespace chimera::gateway {

/// Makes a key for `principal` and prints it with its entry for the file of keys.
Status print_new_key(const std::string& principal);

/// The keys of `config` and the administrator's, which is made when there is none yet.
Result<Keys> load_keys(const GatewayConfig& config);

/// The address of the console and where the administrator's key lies; on a terminal the address has
/// the key in its fragment, so that it can be opened as it is. What a service prints ends up in a
/// log, which never gets the key.
void greet(const GatewayConfig& config, uint16_t port);

}  // namespace chimera::gateway
