// What the front is told about its peers: how each endpoint knows them, and whether they are
// clients.
//
// Thread safety: the function is called by the front's thread alone.
#pragma once

#include <functional>
#include <optional>
#include <vector>

#include "daemon/front/front.h"
#include "daemon/security/authority.h"

namespace chimera {

/// How the peers of an endpoint are known.
enum class KnownBy : uint8_t {
  kKey,      // they prove it to libzmq
  kUser,     // the kernel says it
  kLoopback  // they are not, and that is meant
};

/// For Front::Options::admit. `kinds` are those of its endpoints; `authority` outlives it.
std::function<std::optional<ReadyProperties>(const FrontPeer&)> admission(
    const Authority& authority, std::vector<KnownBy> kinds);

}  // namespace chimera
