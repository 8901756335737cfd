// What a browser tells of where a request comes from. Loopback is not a right: any web page can
// send requests to it, by its address or (DNS rebinding) by a name of the page's own.
//
// Thread safety: values and pure functions.
#pragma once

#include <optional>
#include <string>
#include <vector>

#include "clients/gateway/api/api_error.h"
#include "clients/gateway/http/message.h"

namespace chimera::gateway {

struct BrowserRules {
  std::vector<std::string> hosts{};    // names by which the gateway is reached, besides addresses
  std::vector<std::string> origins{};  // of pages elsewhere that may use it; "*" is all
};

/// Host is an IP address, localhost or one of the rules' names, else 403.
std::optional<ApiError> check_host(const Request& request, const BrowserRules& rules);
/// Origin, when there is one, is the gateway's own or one of the rules', else 403.
std::optional<ApiError> check_origin(const Request& request, const BrowserRules& rules);
/// The headers that let a page of a permitted other origin read the answer.
Headers cors_headers(const Request& request, const BrowserRules& rules);

}  // namespace chimera::gateway
