// Fuzz target of the OpenAI API (run/translation_fuzz.h). The first byte chooses what is asked.
#include <cstdint>

#include "clients/gateway/openai/completion.h"
#include "clients/gateway/openai/embedding.h"
#include "clients/gateway/openai/response.h"
#include "clients/gateway/run/translation_fuzz.h"

namespace {

using namespace chimera;
using namespace chimera::gateway;

/// `read`: a translated request or an error.
template <class Translated>
void check(const std::variant<Translated, ApiError>& read, size_t most) {
  if (const auto* error = std::get_if<ApiError>(&read)) {
    return check_error(ErrorShape::kOpenAi, *error);
  }
  check_calls(std::get<Translated>(read).calls, most);
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  Request request;
  request.body.assign(reinterpret_cast<const char*>(data) + 1, size - 1);
  const ModelNames names = names_to_fuzz();
  if (data[0] == '2') {
    check(openai::read_embedding_request(request, names), 2048);
  } else if (data[0] == '3') {
    check_one(openai::read_response_request(request, names), ErrorShape::kOpenAi, request.body);
  } else {
    const auto api = data[0] % 2 == 0 ? openai::Api::kChat : openai::Api::kText;
    check(openai::read_completion(api, request, names), 128);
  }
  return 0;
}
