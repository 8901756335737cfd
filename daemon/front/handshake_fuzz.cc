// Whatever a peer says first: refused, or passed on as a READY of ours; in one piece or byte by
// byte.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "daemon/front/handshake.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace chimera;
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  for (const Mechanism mechanism : {Mechanism::kNull, Mechanism::kCurve}) {
    Handshake whole(mechanism, {{"X-Mark", "uid:1"}}), slow(mechanism, {{"X-Mark", "uid:1"}});
    const auto at_once = whole.feed(bytes);
    std::string out;
    bool refused = false;
    for (size_t i = 0; i < size && !refused && !slow.done(); ++i) {
      auto part = slow.feed(bytes.substr(i, 1));
      refused = !part.ok();
      if (part.ok()) out += *part;
      if (slow.done()) out += bytes.substr(i + 1);
    }
    if (at_once.ok() == refused) std::abort();
    if (at_once.ok() && (*at_once != out || whole.done() != slow.done())) std::abort();
    if (mechanism == Mechanism::kNull && whole.done() && out.find("Identity") < 100) std::abort();
  }
  return 0;
}
