// Whatever a peer says first: refused, or passed on as a READY of ours; in one piece or byte by
// byte.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "daemon/front/handshake.h"

namespace {

/// Whether the READY command behind the greeting has a name of the peer's choice. (Its greeting may
/// say anything where nothing is read, and so may what comes behind READY.)
bool names_itself(const std::string& out) {
  const size_t begin = chimera::Handshake::kGreetingBytes;
  const size_t size = 2 + static_cast<uint8_t>(out[begin + 1]);  // ours is a short command
  return out.substr(begin, size).find("Identity") != std::string::npos;
}

}  // namespace

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
    if (mechanism == Mechanism::kNull && whole.done() && names_itself(out)) std::abort();
  }
  return 0;
}
