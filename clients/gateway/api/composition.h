// The `model` of a request names a composition as this client sees it:
//
//   demo             all modules that the caller may use
//   demo:base        the backbone alone
//   demo:legal+bio   the backbone with these
//   an alias         what the gateway's configuration says
//
// Thread safety: values and pure functions.
#pragma once

#include <map>
#include <optional>
#include <string>
#include <string_view>
#include <variant>
#include <vector>

#include "base/json/json.h"
#include "clients/gateway/api/api_error.h"
#include "clients/wire/protocol.h"

namespace chimera::gateway {

struct Alias {
  wire::ModuleFilter modules{};
  std::string system{};  // message that stands first where a conversation brings none of its own
  Json defaults = Json::object();  // fields of `generate` for what a request leaves open
};

struct ModelNames {
  std::string name = "demo";
  std::map<std::string, Alias> aliases{};
};

/// What a name stands for; 404 for one that nothing has.
std::variant<Alias, ApiError> find_composition(const ModelNames& names, std::string_view model);

/// What both offer: narrows `filter` by `other`, whose biases win.
void narrow(wire::ModuleFilter& filter, const wire::ModuleFilter& other);

/// Of a call of the engine; null of one that uses no modules.
wire::ModuleFilter* modules_of(wire::Call& call);

/// 403 when `filter` names a module that is not among `allowed`.
std::optional<ApiError> check_allowed(const wire::ModuleFilter& filter,
                                      const std::vector<std::string>& allowed);

/// Of the headers chimera-modules-only: a,b; chimera-modules-exclude: a; chimera-modules-bias:
/// a=0.5.
std::variant<wire::ModuleFilter, ApiError> modules_of_headers(const Request& request);

}  // namespace chimera::gateway
