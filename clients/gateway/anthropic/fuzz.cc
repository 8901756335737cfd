// Fuzz target of the Messages API (run/translation_fuzz.h).
#include <cstdint>

#include "clients/gateway/anthropic/message.h"
#include "clients/gateway/run/translation_fuzz.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  using namespace chimera::gateway;
  Request request;
  request.body.assign(reinterpret_cast<const char*>(data), size);
  check_one(anthropic::read_message(request, names_to_fuzz()), ErrorShape::kAnthropic,
            request.body);
  return 0;
}
