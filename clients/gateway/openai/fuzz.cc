// Fuzz target of the translation HTTP -> wire: any body gives calls that the wire's own reader
// takes, or one error that names something. The first byte chooses the API.
#include <cstdint>
#include <cstdlib>
#include <string>

#include "clients/gateway/openai/completion.h"

namespace {

using namespace chimera;
using namespace chimera::gateway;

void check(openai::Api api, std::string body) {
  ModelNames names;
  names.aliases["plain"].system = "Be brief.";
  names.aliases["plain"].defaults["top_k"] = 5;
  Request request;
  request.body = std::move(body);
  auto read = openai::read_completion(api, request, names);
  if (const auto* error = std::get_if<ApiError>(&read)) {
    if (error->status < 400 || error->status > 499 || error->message.empty()) std::abort();
    if (error_body(ErrorShape::kOpenAi, *error).empty()) std::abort();
    return;
  }
  auto& completion = std::get<openai::Completion>(read);
  if (completion.calls.empty() || completion.calls.size() > 128) std::abort();
  for (const wire::Call& call : completion.calls) {
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
  const std::string body(reinterpret_cast<const char*>(data) + 1, size - 1);
  check(data[0] % 2 == 0 ? openai::Api::kChat : openai::Api::kText, body);
  return 0;
}
