#include "clients/gateway/access/browser.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <algorithm>

#include "base/quote.h"

namespace chimera::gateway {
namespace {

/// "localhost" of "localhost:8080", "::1" of "[::1]:8080".
std::string host_name(std::string_view host) {
  if (host.starts_with('[')) {
    const size_t end = host.find(']');
    return end == std::string_view::npos ? std::string() : std::string(host.substr(1, end - 1));
  }
  return std::string(host.substr(0, host.find(':')));
}

bool is_address(const std::string& name) {
  in6_addr ignored{};
  return inet_pton(AF_INET, name.c_str(), &ignored) == 1 ||
         inet_pton(AF_INET6, name.c_str(), &ignored) == 1;
}

bool contains(const std::vector<std::string>& list, const std::string& what) {
  return std::find(list.begin(), list.end(), what) != list.end();
}

bool is_own(const Request& request, const std::string& origin) {
  const std::string* host = request.header("host");
  return host != nullptr && origin == (request.secure ? "https://" : "http://") + *host;
}

bool is_permitted(const BrowserRules& rules, const std::string& origin) {
  return contains(rules.origins, origin) || contains(rules.origins, "*");
}

}  // namespace

std::optional<ApiError> check_host(const Request& request, const BrowserRules& rules) {
  const std::string* host = request.header("host");
  const std::string name = host == nullptr ? std::string() : host_name(*host);
  if (name == "localhost" || is_address(name) || contains(rules.hosts, name)) return std::nullopt;
  return ApiError{403, "permission_denied",
                  fmt::format("host: {} (expected an address, localhost or a name that the gateway "
                              "knows as its own)",
                              quote(name)),
                  "add it to hosts in the gateway's configuration"};
}

std::optional<ApiError> check_origin(const Request& request, const BrowserRules& rules) {
  const std::string* origin = request.header("origin");
  if (origin == nullptr || is_own(request, *origin) || is_permitted(rules, *origin)) {
    return std::nullopt;
  }
  return ApiError{403, "permission_denied",
                  fmt::format("origin: {} (expected the gateway's own)", quote(*origin)),
                  "add it to cors.origins in the gateway's configuration"};
}

Headers cors_headers(const Request& request, const BrowserRules& rules) {
  const std::string* origin = request.header("origin");
  if (origin == nullptr || is_own(request, *origin) || !is_permitted(rules, *origin)) return {};
  Headers headers = {
      {"access-control-allow-origin", *origin},
      {"access-control-expose-headers", "chimera-epoch, chimera-modules, retry-after"},
      {"vary", "origin"}};
  if (request.method != "OPTIONS") return headers;
  headers.emplace_back("access-control-allow-methods", "GET, POST");
  headers.emplace_back("access-control-allow-headers",
                       "authorization, content-type, x-api-key, anthropic-version, "
                       "chimera-modules-only, chimera-modules-exclude, chimera-modules-bias");
  headers.emplace_back("access-control-max-age", "600");
  return headers;
}

}  // namespace chimera::gateway
