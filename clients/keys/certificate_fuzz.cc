// Whatever a certificate file holds: an error, or a certificate that reads back as itself.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "clients/keys/certificate.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace chimera::keys;
  const auto read = parse_certificate({reinterpret_cast<const char*>(data), size}, "fuzz");
  if (!read.ok()) return 0;
  const auto again =
      parse_certificate(format_certificate(*read, !read->secret_key.empty()), "again");
  if (!again.ok() || again->public_key != read->public_key ||
      again->statement_key != read->statement_key) {
    std::abort();
  }
  return 0;
}
