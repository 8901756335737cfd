// Fuzz target of the request decoder: any bytes give a request or one error, never more.
// A request that decodes must survive encode and decode unchanged.
#include <cstdlib>
#include <string>

#include "clients/wire/protocol.h"

namespace {

using chimera::wire::Endpoint;
using chimera::wire::Request;

void check(std::string_view text, Endpoint endpoint) {
  std::string id;
  const auto decoded = chimera::wire::decode_request(text, endpoint, &id);
  const auto* request = std::get_if<Request>(&decoded);
  if (request == nullptr) {
    const auto& error = std::get<chimera::wire::Error>(decoded);
    if (error.code.empty() || error.message.empty()) std::abort();
    return;
  }
  const std::string once = chimera::wire::encode_request(*request);
  const auto again = chimera::wire::decode_request(once, endpoint, &id);
  // Escapes may make the second text longer than the first, past the limit of a frame.
  if (once.size() > chimera::wire::kMaxMessageBytes) return;
  if (!std::holds_alternative<Request>(again)) std::abort();
  if (chimera::wire::encode_request(std::get<Request>(again)) != once) std::abort();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  check(text, Endpoint::kServe);
  check(text, Endpoint::kControl);
  return 0;
}
