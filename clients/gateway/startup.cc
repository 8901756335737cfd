#include "clients/gateway/startup.h"

#include <fmt/format.h>
#include <unistd.h>

#include <iostream>

namespace chimera::gateway {
namespace {

std::string key_of_file(const std::string& path) {
  const auto key = admin_key(path);  // which load_keys() has made
  return key.ok() ? *key : "";
}

}  // namespace

Status print_new_key(const std::string& principal) {
  const auto key = new_key();
  if (!key.ok()) return key.status();
  std::cout << fmt::format(
      "key: {}\n# It is not kept anywhere. Entry for the file of keys:\n"
      "  - principal: {}\n    digest: {}\n    rights: [generate]\n",
      *key, principal, key_digest(*key));
  return {};
}

Result<Keys> load_keys(const GatewayConfig& config) {
  Keys keys;
  if (!config.api_keys.empty()) {
    auto read = read_keys(config.api_keys);
    if (!read.ok()) return read;
    keys = std::move(*read);
  }
  auto key = admin_key(config.admin_key);
  if (!key.ok()) return key.status();
  keys.add(key_digest(*key), {.name = "admin", .generate = true, .observe = true, .change = true});
  return keys;
}

void greet(const GatewayConfig& config, uint16_t port) {
  const bool v6 = config.address.find(':') != std::string::npos;
  const std::string url =
      fmt::format("{}://{}{}{}:{}/", config.tls.certificate.empty() ? "http" : "https",
                  v6 ? "[" : "", config.address, v6 ? "]" : "", port);
  // Behind the "#" an address stays in the browser. What a service prints ends up in a log, where
  // no key belongs; a person at a terminal is not one.
  const std::string key = isatty(STDOUT_FILENO) == 1 ? key_of_file(config.admin_key) : "";
  std::cout << url << (key.empty() ? "" : "#key=" + key) << "\nadmin key: " << config.admin_key
            << '\n';
  if (config.anonymous) {
    std::cout << "Whoever reaches this address may generate text without a key (anonymous: "
                 "generate).\n";
  }
  std::cout << std::flush;
}

}  // namespace chimera::gateway
