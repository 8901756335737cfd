// What a gateway is told to do: configs/gateway.yaml as a value.
//
// Reading reports every problem at once, each with file, line, column, found and expected.
//
// Thread safety: values and free functions, from any thread.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "clients/gateway/access/browser.h"
#include "clients/gateway/access/keys.h"
#include "clients/gateway/api/composition.h"
#include "clients/gateway/dialect/dialect.h"
#include "clients/gateway/http/server.h"

namespace chimera::gateway {

struct GatewayConfig {
  std::string address = "127.0.0.1";
  uint16_t port = 8080;
  TlsFiles tls{};
  struct {
    std::string serve, control;   // empty: where daemon and clients of this user meet
    std::string key, server_key;  // files of CURVE keys, both or none
  } daemon{};
  std::string api_keys{};   // file; empty: none besides the admin's
  std::string admin_key{};  // file; fill_defaults() says where when empty
  bool anonymous = false;   // text without a key, on loopback alone
  BrowserRules browser{};
  ModelNames models{};
  std::optional<Dialect> dialect{};  // of the model; else its chat template is asked
  HttpLimits http{};
  std::chrono::seconds drain{300};  // for streams to end after SIGTERM
};

/// Relative paths start at the directory of the file.
Result<GatewayConfig> read_config(const std::string& file);
Result<GatewayConfig> parse_config(std::string_view yaml, const std::string& label,
                                   const std::string& base_dir);
/// $XDG_STATE_HOME/chimera/gateway/admin.key, else below ~/.local/state.
Status fill_defaults(GatewayConfig* config);

/// The file of keys (docs/gateway.md). One that others may write is refused.
Result<Keys> read_keys(const std::string& file);
Result<Keys> parse_keys(std::string_view yaml, const std::string& label);

}  // namespace chimera::gateway
