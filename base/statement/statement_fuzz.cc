// Whatever a statement holds: refused. Nobody guesses a signature.
#include <array>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/json/reader.h"
#include "base/statement/canonical.h"
#include "base/statement/statement.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace chimera;
  static const StatementSigner signer = [] {
    std::array<uint8_t, 32> secret{};
    secret.fill(7);
    return StatementSigner::from_secret(secret);
  }();
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  // The one in the corpus is truly signed; what differs from it is not.
  const auto payload = verify_statement(text, "receipt/1", signer.public_key(), "fuzz");
  if (payload.ok() && canonical_json(*payload) != R"({"chimera":"receipt/1","n":1})") std::abort();
  if (const auto json = parse_json(text); json.ok()) {
    const std::string once = canonical_json(*json);
    const auto again = parse_json(once);
    if (!again.ok() || canonical_json(*again) != once) std::abort();
  }
  return 0;
}
