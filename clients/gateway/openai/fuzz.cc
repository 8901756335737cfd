// Fuzz target of the translation HTTP -> wire: any body gives calls that the wire's own reader
// takes, or one error that names something. The first byte chooses the API.
#include <cstdint>
#include <cstdlib>
#include <string>
#include <variant>

#include "clients/gateway/openai/completion.h"
#include "clients/gateway/openai/embedding.h"

namespace {

using namespace chimera;
using namespace chimera::gateway;

ModelNames names() {
  ModelNames out;
  out.aliases["plain"].system = "Be brief.";
  out.aliases["plain"].defaults["top_k"] = 5;
  return out;
}

/// `read`: a translated request or an error.
template <class Translated>
void check(const std::variant<Translated, ApiError>& read, size_t most) {
  if (const auto* error = std::get_if<ApiError>(&read)) {
    if (error->status < 400 || error->status > 499 || error->message.empty()) std::abort();
    if (error_body(ErrorShape::kOpenAi, *error).empty()) std::abort();
    return;
  }
  const auto& calls = std::get<Translated>(read).calls;
  if (calls.empty() || calls.size() > most) std::abort();
  for (const wire::Call& call : calls) {
    const std::string text = wire::encode_request({"id", call});
    if (text.size() > wire::kMaxMessageBytes) continue;
    std::string id;
    const auto decoded = wire::decode_request(text, wire::Endpoint::kServe, &id);
    if (!std::holds_alternative<wire::Request>(decoded)) std::abort();
  }
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  if (size == 0) return 0;
  Request request;
  request.body.assign(reinterpret_cast<const char*>(data) + 1, size - 1);
  if (data[0] == '2') {
    check(openai::read_embedding_request(request, names()), 2048);
  } else {
    const auto api = data[0] % 2 == 0 ? openai::Api::kChat : openai::Api::kText;
    check(openai::read_completion(api, request, names()), 128);
  }
  return 0;
}
