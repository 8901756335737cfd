// Whatever a signature or key file holds: refused, or read as what writes the same bytes again.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/minisign/minisign.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace chimera::minisign;
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  if (const auto key = parse_public_key(text, "fuzz"); key.ok()) {
    if (*parse_public_key(format_public_key(*key), "again") != *key) std::abort();
    if (const auto signature = parse_signature(text, "fuzz"); signature.ok()) std::abort();
  }
  if (const auto key = parse_secret_key(text, "fuzz"); key.ok()) {
    if (!parse_secret_key(format_secret_key(*key), "again").ok()) std::abort();
  }
  if (const auto signature = parse_signature(text, "fuzz"); signature.ok()) {
    if (verify("message", *signature, PublicKey{signature->id, {}})) std::abort();
  }
  return 0;
}
