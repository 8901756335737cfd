#include "daemon/engine/canary.h"

namespace chimera {

uint64_t canary_lot(std::string_view client, std::string_view id) {
  uint64_t hash = 0xcbf29ce484222325u;
  const auto add = [&hash](unsigned char byte) { hash = (hash ^ byte) * 0x100000001b3u; };
  for (const char c : client) add(static_cast<unsigned char>(c));
  add(0);  // "a", "bc" is not "ab", "c"
  for (const char c : id) add(static_cast<unsigned char>(c));
  hash = (hash ^ (hash >> 30)) * 0xbf58476d1ce4e5b9u;
  hash = (hash ^ (hash >> 27)) * 0x94d049bb133111ebu;
  return hash ^ (hash >> 31);
}

}  // namespace chimera
