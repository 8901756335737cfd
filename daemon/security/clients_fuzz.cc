// Whatever a clients file holds: an error with positions, or a list whose clients have a role.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "daemon/security/clients_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace chimera;
  const ClientsText text{"fuzz", std::string(reinterpret_cast<const char*>(data), size)};
  const auto read = parse_clients({&text, 1});
  if (!read.ok()) {
    if (read.status().message().empty()) std::abort();
    return 0;
  }
  for (const auto& [key, client] : read->by_key) {
    if (client->roles.empty() || client->name.empty()) std::abort();
  }
  return 0;
}
