#include "clients/gateway/body/wire_call.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <span>

#include "base/json/reader.h"
#include "base/json/writer.h"

namespace chimera::gateway {
namespace {

constexpr JsonLimits kBodyLimits{.max_depth = 32, .max_values = 1'052'672};  // as on the wire

// What only Chimera has.
constexpr std::array kOwnOfTexts = {"modules", "deadline_ms", "shares"};
constexpr std::array kOwnOfEmbeddings = {"modules", "deadline_ms", "pooling", "normalize"};

void take_own(Members& body, std::span<const char* const> names, Json& fields) {
  const Json* own = body.take("chimera");
  if (own == nullptr) return;
  if (!own->is_object()) return body.bad("chimera", *own, "an object");
  Members inner(*own, "chimera.");
  for (const char* name : names) {
    if (const Json* value = inner.take(name)) fields[name] = *value;
  }
  if (auto problem = inner.finish()) body.fail(std::move(*problem));
}

}  // namespace

std::variant<Json, ApiError> parse_body(const std::string& body) {
  auto read = parse_json(body, kBodyLimits);
  if (!read.ok()) return ApiError{400, "invalid_json", "body: " + read.status().message()};
  if (!read->is_object()) return ApiError{400, "invalid_json", "body: not a JSON object"};
  return std::move(*read);
}

void WireCall::composition(Members& body, const Request& request, const ModelNames& names,
                           Purpose purpose) {
  const auto model = body.text("model");
  if (!body.ok()) return;
  if (!model) {
    return body.fail(bad_field("model", "missing (expected the name of a composition)",
                               "GET /v1/models lists them"));
  }
  model_ = *model;
  auto found = find_composition(names, *model);
  if (auto* error = std::get_if<ApiError>(&found)) return body.fail(std::move(*error));
  alias_ = std::move(std::get<Alias>(found));
  auto modules = modules_of_headers(request);
  if (auto* error = std::get_if<ApiError>(&modules)) return body.fail(std::move(*error));
  of_headers_ = std::get<wire::ModuleFilter>(std::move(modules));
  if (purpose == Purpose::kEmbedding) {
    for (const char* name : {"pooling", "normalize"}) rename(name, std::string("chimera.") + name);
    return take_own(body, kOwnOfEmbeddings, fields_);
  }
  fields_ = alias_.defaults;
  take_own(body, kOwnOfTexts, fields_);
}

void WireCall::take(Members& body, std::string_view name) {
  if (const Json* value = body.take(name)) fields_[name] = *value;
}

std::variant<wire::Call, ApiError> WireCall::read(std::string_view call) {
  fields_["id"] = "gateway";
  fields_["call"] = call;
  std::string id;
  auto decoded = wire::decode_request(write_json(fields_), wire::Endpoint::kServe, &id);
  if (const auto* error = std::get_if<wire::Error>(&decoded)) return renamed(*error, call);
  wire::Call out = std::move(std::get<wire::Request>(decoded).call);
  if (wire::ModuleFilter* modules = modules_of(out)) {
    narrow(*modules, alias_.modules);
    narrow(*modules, of_headers_);
  }
  return out;
}

/// "chat.max_tokens: 0 (expected …)", one a line, in the names of the body.
ApiError WireCall::renamed(const wire::Error& error, std::string_view call) const {
  ApiError out = from_wire(error);
  out.message.clear();
  const std::string prefix = fmt::format("{}.", call);
  std::string_view rest = error.message;
  while (!rest.empty()) {
    std::string_view line = rest.substr(0, rest.find('\n'));
    rest.remove_prefix(std::min(rest.size(), line.size() + 1));
    if (line.starts_with(prefix)) line.remove_prefix(prefix.size());
    if (!out.message.empty()) out.message += '\n';
    const std::string_view field = line.substr(0, line.find_first_of(":[. "));
    const auto name = names_.find(field);
    out.message += name == names_.end() ? field : std::string_view(name->second);
    out.message += line.substr(field.size());
  }
  out.hint.clear();  // about the wire
  out.param = out.message.substr(0, out.message.find_first_of(":[ "));
  return out;
}

}  // namespace chimera::gateway
