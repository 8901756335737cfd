#include "clients/gateway/config/config.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <filesystem>

#include "base/io/env.h"
#include "base/json/reader.h"
#include "base/json/writer.h"
#include "base/yaml/tree.h"
#include "clients/gateway/config/yaml_fields.h"

namespace chimera::gateway {
namespace {

constexpr size_t kMaxBytes = 1u << 20;  // of a file
constexpr std::string_view kHint = "docs/gateway.md lists the keys";

/// "127.0.0.1:8080", "[::1]:8080".
bool parse_listen(const std::string& text, GatewayConfig* out) {
  const size_t colon = text.rfind(':');
  if (colon == std::string::npos) return false;
  std::string address = text.substr(0, colon);
  in6_addr ignored{};
  if (address.starts_with('[') && address.ends_with(']')) {
    address = address.substr(1, address.size() - 2);
    if (inet_pton(AF_INET6, address.c_str(), &ignored) != 1) return false;
  } else if (inet_pton(AF_INET, address.c_str(), &ignored) != 1) {
    return false;
  }
  uint16_t port = 0;
  const char* end = text.data() + text.size();
  const auto [stop, error] = std::from_chars(text.data() + colon + 1, end, port);
  if (error != std::errc() || stop != end) return false;
  out->address = address;
  out->port = port;
  return true;
}

/// A YAML value as JSON: what is written without quotes and looks like a number or a boolean is
/// one.
Json json_of(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return nullptr;
    case YamlNode::Kind::kScalar: {
      if (!node.plain || is_text(node)) return node.text;
      auto value = parse_json(node.text);
      return value.ok() ? std::move(*value) : Json(node.text);
    }
    case YamlNode::Kind::kList: {
      Json out = Json::array();
      for (const YamlNode& item : node.items) out.push_back(json_of(item));
      return out;
    }
    case YamlNode::Kind::kMap: {
      Json out = Json::object();
      for (const auto& [key, value] : node.entries) out[key.text] = json_of(value);
      return out;
    }
  }
  return nullptr;
}

class Reader {
 public:
  Reader(YamlProblems& problems, std::string base_dir)
      : problems_(problems), base_dir_(std::move(base_dir)) {}

  void read(const YamlNode& root, GatewayConfig* out) {
    YamlFields top(root, "", problems_);
    std::string format;
    if (top.text("chimera", format, "gateway/1") && format != "gateway/1") {
      top.bad("chimera", *top.find("chimera"), "gateway/1");
    }
    std::string listen;
    constexpr std::string_view kListen = "an IP address and a port, 127.0.0.1:8080";
    if (top.text("listen", listen, kListen) && !parse_listen(listen, out)) {
      top.bad("listen", *top.find("listen"), kListen);
    }
    tls(top, out);
    daemon(top, out);
    path(top, "api_keys", out->api_keys);
    path(top, "admin_key", out->admin_key);
    anonymous(top, out);
    top.list("hosts", out->browser.hosts, "a list of host names");
    if (const YamlNode* node = top.find("cors")) {
      YamlFields cors(*node, "cors", problems_);
      cors.list("origins", out->browser.origins, "a list of origins, https://example.org");
      cors.finish();
    }
    models(top, out);
    limits(top, out);
    top.finish();
  }

 private:
  void path(YamlFields& map, std::string_view key, std::string& out) {
    std::string text;
    if (!map.text(key, text, "a path")) return;
    out = (std::filesystem::path(base_dir_) / text).lexically_normal().string();
  }

  void tls(YamlFields& top, GatewayConfig* out) {
    const YamlNode* node = top.find("tls");
    if (node == nullptr) return;
    YamlFields map(*node, "tls", problems_);
    path(map, "certificate", out->tls.certificate);
    path(map, "key", out->tls.key);
    if (out->tls.certificate.empty() != out->tls.key.empty()) {
      problems_.add(*node, "tls: one of certificate and key (expected both)");
    }
    map.finish();
  }

  void daemon(YamlFields& top, GatewayConfig* out) {
    const YamlNode* node = top.find("daemon");
    if (node == nullptr) return;
    YamlFields map(*node, "daemon", problems_);
    map.text("serve", out->daemon.serve, "an endpoint, ipc:///path or tcp://address:port");
    map.text("control", out->daemon.control, "an endpoint, ipc:///path or tcp://address:port");
    map.finish();
  }

  void anonymous(YamlFields& top, GatewayConfig* out) {
    out->anonymous = top.choice("anonymous", {"refuse", "generate"}) == 1;
    const bool loopback = out->address.starts_with("127.") || out->address == "::1";
    if (!out->anonymous || loopback) return;
    problems_.add(*top.find("anonymous"),
                  fmt::format("anonymous: generate while listening on {} (expected 127.0.0.1 or "
                              "::1: without a key, nobody else may ask)",
                              out->address));
  }

  void models(YamlFields& top, GatewayConfig* out) {
    const YamlNode* node = top.find("models");
    if (node == nullptr) return;
    YamlFields map(*node, "models", problems_);
    map.text("name", out->models.name, "a name");
    if (out->models.name.find(':') != std::string::npos) {
      map.bad("name", *map.find("name"), "a name without a colon");
    }
    if (const YamlNode* list = map.find("aliases")) {
      YamlFields names(*list, "models.aliases", problems_);
      for (const auto& [key, value] : list->entries) alias(key.text, value, out);
    }
    map.finish();
  }

  void alias(const std::string& name, const YamlNode& node, GatewayConfig* out) {
    const std::string path = "models.aliases." + name;
    YamlFields map(node, path, problems_);
    Alias& alias = out->models.aliases[name];
    map.text("system", alias.system, "a text");
    Json request = {{"id", "x"}, {"call", "generate"}, {"prompt", ""}};
    if (const YamlNode* modules = map.find("modules")) request["modules"] = json_of(*modules);
    const YamlNode* defaults = map.find("defaults");
    if (defaults != nullptr) {
      alias.defaults = json_of(*defaults);
      for (const char* taken :
           {"id", "call", "prompt", "tokens", "modules", "stream", "logprobs"}) {
        if (alias.defaults.contains(taken)) {
          problems_.add(*defaults,
                        fmt::format("{}.defaults.{}: not a default of sampling", path, taken));
          alias.defaults.erase(taken);
        }
      }
      request.update(alias.defaults);
    }
    map.finish();
    check(request, path, node, alias);
  }

  /// The wire's own reader knows the fields and their ranges.
  void check(const Json& request, const std::string& path, const YamlNode& node, Alias& alias) {
    std::string id;
    auto decoded = wire::decode_request(write_json(request), wire::Endpoint::kServe, &id);
    if (const auto* error = std::get_if<wire::Error>(&decoded)) {
      return problems_.add(node, fmt::format("{}: {}", path, error->message));
    }
    alias.modules = std::get<wire::Generate>(std::get<wire::Request>(decoded).call).modules;
  }

  void limits(YamlFields& top, GatewayConfig* out) {
    const YamlNode* node = top.find("limits");
    if (node == nullptr) return;
    YamlFields map(*node, "limits", problems_);
    const auto size = [&map](std::string_view key, int64_t min, int64_t max, size_t& value) {
      auto number = static_cast<int64_t>(value);
      map.integer(key, min, max, number);
      value = static_cast<size_t>(number);
    };
    const auto seconds = [&map](std::string_view key, std::chrono::seconds& value) {
      int64_t number = value.count();
      map.integer(key, 1, 86'400, number);
      value = std::chrono::seconds(number);
    };
    size("connections", 1, 1'000'000, out->http.connections);
    size("header_bytes", 1024, 1 << 20, out->http.header_bytes);
    size("body_bytes", 1024, 4 << 20, out->http.body_bytes);
    size("unread_bytes", 4096, 64 << 20, out->http.unread_bytes);
    seconds("header_seconds", out->http.header);
    seconds("body_seconds", out->http.body);
    seconds("idle_seconds", out->http.idle);
    seconds("write_seconds", out->http.write);
    seconds("drain_seconds", out->drain);
    map.finish();
  }

  YamlProblems& problems_;
  const std::string base_dir_;
};

}  // namespace

Result<GatewayConfig> parse_config(std::string_view yaml, const std::string& label,
                                   const std::string& base_dir) {
  YamlProblems problems(label);
  const auto root = parse_yaml(yaml, label, problems);
  if (!root.ok()) return root.status();
  GatewayConfig config;
  // A file of comments alone is one that changes nothing.
  if (root->kind != YamlNode::Kind::kNull) Reader(problems, base_dir).read(*root, &config);
  if (!problems.empty()) return problems.status(std::string(kHint));
  return config;
}

Result<GatewayConfig> read_config(const std::string& file) {
  const auto text = read_file(Env::system(), file, kMaxBytes);
  if (!text.ok()) return text.status();
  return parse_config(*text, file, parent_directory(file));
}

Status fill_defaults(GatewayConfig* config) {
  if (!config->admin_key.empty()) return {};
  const char* state = std::getenv("XDG_STATE_HOME");
  const char* home = std::getenv("HOME");
  if (state != nullptr && state[0] == '/') {
    config->admin_key = std::string(state) + "/chimera/gateway/admin.key";
  } else if (home != nullptr && home[0] == '/') {
    config->admin_key = std::string(home) + "/.local/state/chimera/gateway/admin.key";
  } else {
    return Status(Code::kFailedPrecondition, "admin_key: no place for it, as HOME is not set",
                  "name a file in the configuration");
  }
  return {};
}

}  // namespace chimera::gateway
