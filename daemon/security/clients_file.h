// The clients file: who is admitted, and what for (docs/security.md).
//
//   chimera: clients/1
//   clients:
//     - name: legal-team
//       public_key: "…"              # of legal-team.pub, or
//       uid: 1001                    # a user of this machine, over ipc
//       roles: [use]
//       modules: [legal, "bio-*"]    # or all
//       expires: 2027-01-31          # or 2027-01-31T18:00:00Z
//       limits: {in_flight: 4, queued: 16, tokens_per_minute: 60000}   # and more of them
//
// Thread safety: free functions over values.
#pragma once

#include <sys/types.h>

#include <map>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "daemon/security/principal.h"

namespace chimera {

struct ClientList {
  std::map<std::string, PrincipalPtr> by_key;  // public key in Z85
  std::map<uid_t, PrincipalPtr> by_uid;
};

struct ClientsText {
  std::string label;  // of problems: the file
  std::string yaml;
};

/// Names, keys and users are each told once over all texts. Problems of all of them at once, with
/// file, line and column.
Result<ClientList> parse_clients(std::span<const ClientsText> texts);

/// A file, or every *.yaml of a directory. Nobody else may be able to write to it or to what holds
/// it (permission_denied).
Result<ClientList> read_clients(const std::string& path);

/// Changes when a file that read_clients would read does.
std::string clients_signature(const std::string& path);

}  // namespace chimera
