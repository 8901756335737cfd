#include "clients/gateway/native/calls.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>

#include "base/json/reader.h"
#include "base/json/writer.h"
#include "base/quote.h"
#include "clients/wire/calls.h"

namespace chimera::gateway::native {
namespace {

struct Offer {
  std::string_view call;
  std::string_view method;
  Right right;
};
// `generate` and `chat` have /v1/completions; `cancel` is to close the connection; `drain` and
// `shutdown` are for who runs the daemon.
constexpr std::array kOffers = {
    Offer{"info", "GET", Right::kObserve},       Offer{"health", "GET", Right::kObserve},
    Offer{"modules", "GET", Right::kObserve},    Offer{"epochs", "GET", Right::kObserve},
    Offer{"routing", "GET", Right::kObserve},    Offer{"stats", "GET", Right::kObserve},
    Offer{"requests", "GET", Right::kObserve},   Offer{"usage", "GET", Right::kObserve},
    Offer{"plan", "POST", Right::kObserve},      Offer{"load", "POST", Right::kChange},
    Offer{"unload", "POST", Right::kChange},     Offer{"revoke", "POST", Right::kChange},
    Offer{"apply", "POST", Right::kChange},      Offer{"rollback", "POST", Right::kChange},
    Offer{"bias", "POST", Right::kChange},       Offer{"enable", "POST", Right::kChange},
    Offer{"disable", "POST", Right::kChange},    Offer{"routing", "POST", Right::kChange},
    Offer{"blend", "POST", Right::kChange},      Offer{"promote", "POST", Right::kChange},
    Offer{"abort", "POST", Right::kChange},      Offer{"canary", "GET", Right::kObserve},
    Offer{"events", "GET", Right::kObserve},  // no call of the wire: events.h
    Offer{"score", "POST", Right::kGenerate},    Offer{"embed", "POST", Right::kGenerate},
    Offer{"tokenize", "POST", Right::kGenerate}, Offer{"detokenize", "POST", Right::kGenerate},
};

std::string_view call_of(std::string_view path) {
  path.remove_prefix(std::min(path.size(), kRoot.size()));
  return path;
}

wire::Endpoint endpoint_of(std::string_view call) {
  for (const wire::CallSpec& spec : wire::kCalls) {
    if (spec.name == call) return spec.endpoint;
  }
  return wire::Endpoint::kServe;
}

/// "layer=3&reset=true" as an object: integers and booleans where they look like ones.
Json fields_of_query(std::string_view query) {
  Json out = Json::object();
  while (!query.empty()) {
    const std::string_view pair = query.substr(0, query.find('&'));
    query.remove_prefix(std::min(query.size(), pair.size() + 1));
    const std::string key(pair.substr(0, pair.find('=')));
    const std::string value = query_parameter(pair, key).value_or("");
    int64_t number = 0;
    const auto [end, error] = std::from_chars(value.data(), value.data() + value.size(), number);
    if (error == std::errc() && end == value.data() + value.size()) {
      out[key] = number;
    } else if (value == "true" || value == "false") {
      out[key] = value == "true";
    } else {
      out[key] = value;
    }
  }
  return out;
}

}  // namespace

std::variant<Right, ApiError> right_of(std::string_view method, std::string_view path) {
  const std::string_view call = call_of(path);
  bool known = false;
  for (const Offer& offer : kOffers) {
    if (offer.call != call) continue;
    if (offer.method == method) return offer.right;
    known = true;
  }
  if (known) {
    return ApiError{405, "invalid_argument",
                    fmt::format("{}: {} (expected another method)", quote(path), quote(method)),
                    "GET for what only looks, POST for the rest"};
  }
  return ApiError{404, "not_found", fmt::format("{}: no such call", quote(path)),
                  "see docs/gateway.md"};
}

std::variant<wire::Call, ApiError> read_call(const Request& request) {
  const std::string_view call = call_of(request.path);
  Json fields = Json::object();
  if (request.method == "GET") {
    fields = fields_of_query(request.query);
  } else if (!request.body.empty()) {
    auto body = parse_json(request.body, {.max_depth = 32, .max_values = 1'052'672});
    if (!body.ok()) return ApiError{400, "invalid_argument", "body: " + body.status().message()};
    if (!body->is_object()) return ApiError{400, "invalid_argument", "body: not a JSON object"};
    fields = std::move(*body);
  }
  for (const char* own : {"id", "call"}) {
    if (fields.contains(own)) return bad_field(own, "not a field here", "the path names the call");
  }
  if (fields.contains("traceparent")) {
    return bad_field("traceparent", "not a field here", "the header of that name is");
  }
  fields["id"] = "gateway";
  fields["call"] = call;
  std::string id;
  auto decoded = wire::decode_request(write_json(fields), endpoint_of(call), &id);
  if (const auto* error = std::get_if<wire::Error>(&decoded)) return from_wire(*error);
  wire::Call read = std::get<wire::Request>(std::move(decoded)).call;
  if (auto* score = std::get_if<wire::Score>(&read); score != nullptr && score->logits) {
    return unsupported("logits", "they are binary; chimera/1 has them");
  }
  const auto* routing = std::get_if<wire::Routing>(&read);
  if (routing != nullptr && routing->reset && request.method == "GET") {
    return bad_field("reset", "true in a GET (expected a POST, as it changes what others see)");
  }
  return read;
}

std::string answer_body(const Json& done) {
  Json out = done;
  out.erase("id");
  out.erase("event");
  return write_json(out) + "\n";
}

}  // namespace chimera::gateway::native
