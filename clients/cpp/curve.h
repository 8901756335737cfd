// The CURVE keys of a connection. Internal to the client library.
//
// Thread safety: free functions over values.
#pragma once

#include <optional>
#include <string>
#include <variant>

#include "chimera_client/client.h"
#include "clients/wire/protocol.h"

namespace chimera::client {

/// Files of keys, both or none.
struct KeyFiles {
  std::string key, server_key;
};

struct CurveKeys {
  std::string public_key, secret_key, server_key;  // Z85
};

/// What the options say, else the environment.
KeyFiles key_files(const Options& options);

/// The keys for `endpoint`; nothing where none are needed.
std::variant<std::optional<CurveKeys>, wire::Error> read_keys(const std::string& endpoint,
                                                              const KeyFiles& files);

/// The daemon at `endpoint` refuses this client; `with_keys`: which showed a key.
wire::Error refused(const std::string& endpoint, bool with_keys);

}  // namespace chimera::client
