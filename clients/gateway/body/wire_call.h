// The fields of a call of the wire, gathered from a body and checked as the daemon will check them.
//
// Thread safety: none; by the thread that reads.
#pragma once

#include <cstdint>
#include <map>
#include <string>
#include <string_view>
#include <variant>

#include "base/json/json.h"
#include "clients/gateway/api/composition.h"
#include "clients/gateway/body/members.h"
#include "clients/wire/protocol.h"

namespace chimera::gateway {

/// A JSON object out of a body, within the limits of the wire; else what is wrong.
std::variant<Json, ApiError> parse_body(const std::string& body);

class WireCall {
 public:
  enum class Purpose : uint8_t { kText, kEmbedding };

  /// Takes `model` and `chimera` from the body, and the headers of the request. An alias' defaults
  /// are for texts, and so are some members of `chimera`.
  void composition(Members& body, const Request& request, const ModelNames& names,
                   Purpose purpose = Purpose::kText);
  const std::string& model() const { return model_; }
  const std::string& system() const { return alias_.system; }

  Json& fields() { return fields_; }
  /// The wire's `field` is called `name` in the body.
  void rename(std::string field, std::string name) { names_[std::move(field)] = std::move(name); }
  /// Copies the member of that name, if there is one.
  void take(Members& body, std::string_view name);

  /// The call with what was gathered so far. Problems are told in the names of the body.
  std::variant<wire::Call, ApiError> read(std::string_view call);

 private:
  ApiError renamed(const wire::Error& error, std::string_view call) const;

  std::string model_;
  Alias alias_;
  wire::ModuleFilter of_headers_;
  Json fields_ = Json::object();
  std::map<std::string, std::string, std::less<>> names_;
};

}  // namespace chimera::gateway
