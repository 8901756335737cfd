#include "clients/gateway/config/config.h"

#include <arpa/inet.h>
#include <fmt/format.h>

#include <charconv>
#include <cstdlib>
#include <filesystem>

#include "base/io/env.h"
#include "base/json/writer.h"
#include "base/yaml/field_value.h"
#include "clients/gateway/config/fields.h"

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

enum class Anonymous : uint8_t { kRefuse, kGenerate };
constexpr auto kAnonymousNames = enum_names<Anonymous>("refuse", "generate");

/// A value as JSON: what is written without quotes and looks like a number or a boolean is one.
Json json_of(const FieldValue& value) {
  switch (value.kind()) {
    case FieldValue::Kind::kNull:
      return nullptr;
    case FieldValue::Kind::kScalar:
      if (const auto integer = value.integer()) return *integer;
      if (const auto number = value.number()) return *number;
      if (const auto flag = value.boolean()) return *flag;
      return value.scalar().value_or("");
    case FieldValue::Kind::kList: {
      Json out = Json::array();
      for (size_t i = 0; i < value.size(); ++i) out.push_back(json_of(value[i]));
      return out;
    }
    case FieldValue::Kind::kMap: {
      Json out = Json::object();
      for (size_t i = 0; i < value.size(); ++i) {
        const FieldEntry entry = value.entry(i);
        out[entry.key] = json_of(entry.value);
      }
      return out;
    }
  }
  return nullptr;
}

class Reader {
 public:
  Reader(Problems& problems, std::string base_dir)
      : problems_(problems), base_dir_(std::move(base_dir)) {}

  void read(const FieldValue& root, GatewayConfig* out) {
    ConfigFields top(root, "", problems_);
    std::string format;
    if (top.line("chimera", "gateway/1", format) && format != "gateway/1") {
      top.bad("chimera", *top.find("chimera"), "gateway/1");
    }
    std::string listen;
    constexpr std::string_view kListen = "an IP address and a port, 127.0.0.1:8080";
    if (top.line("listen", kListen, listen) && !parse_listen(listen, out)) {
      top.bad("listen", *top.find("listen"), kListen);
    }
    tls(top, out);
    daemon(top, out);
    path(top, "api_keys", out->api_keys);
    path(top, "admin_key", out->admin_key);
    anonymous(top, out);
    top.lines("hosts", "a list of host names", out->browser.hosts);
    if (const auto value = top.map("cors")) {
      ConfigFields cors(*value, "cors", problems_);
      cors.lines("origins", "a list of origins, https://example.org", out->browser.origins);
      cors.finish();
    }
    models(top, out);
    limits(top, out);
    top.finish();
  }

 private:
  void path(ConfigFields& map, std::string_view key, std::string& out) {
    std::string text;
    if (!map.line(key, "a path", text)) return;
    out = (std::filesystem::path(base_dir_) / text).lexically_normal().string();
  }

  void tls(ConfigFields& top, GatewayConfig* out) {
    const auto value = top.map("tls");
    if (!value) return;
    ConfigFields map(*value, "tls", problems_);
    path(map, "certificate", out->tls.certificate);
    path(map, "key", out->tls.key);
    if (out->tls.certificate.empty() != out->tls.key.empty()) {
      map.fail({"tls: one of certificate and key (expected both)"});
    }
    map.finish();
  }

  void daemon(ConfigFields& top, GatewayConfig* out) {
    const auto value = top.map("daemon");
    if (!value) return;
    ConfigFields map(*value, "daemon", problems_);
    constexpr std::string_view kEndpoint = "an endpoint, ipc:///path or tcp://address:port";
    map.line("serve", kEndpoint, out->daemon.serve);
    map.line("control", kEndpoint, out->daemon.control);
    path(map, "key", out->daemon.key);
    path(map, "server_key", out->daemon.server_key);
    if (out->daemon.key.empty() != out->daemon.server_key.empty()) {
      map.fail({"daemon: one of key and server_key (expected both)"});
    }
    map.finish();
  }

  void anonymous(ConfigFields& top, GatewayConfig* out) {
    Anonymous may = Anonymous::kRefuse;
    top.choice("anonymous", kAnonymousNames, may);
    out->anonymous = may == Anonymous::kGenerate;
    const bool loopback = out->address.starts_with("127.") || out->address == "::1";
    if (!out->anonymous || loopback) return;
    problems_.add(
        top.find("anonymous")->place(),
        {fmt::format(
            "anonymous: generate while listening on {} (expected 127.0.0.1 or ::1: without "
            "a key, nobody else may ask)",
            out->address)});
  }

  void models(ConfigFields& top, GatewayConfig* out) {
    const auto value = top.map("models");
    if (!value) return;
    ConfigFields map(*value, "models", problems_);
    constexpr std::string_view kName = "a name without a colon";
    map.line("name", kName, out->models.name);
    if (out->models.name.find(':') != std::string::npos) {
      map.bad("name", *map.find("name"), kName);
    }
    std::string dialect = "auto";
    const std::string expected = "auto, " + kDialectNames.choices();
    if (map.line("dialect", expected, dialect) && dialect != "auto") {
      out->dialect = kDialectNames.find(dialect);
      if (!out->dialect) map.bad("dialect", *map.find("dialect"), expected);
    }
    const auto aliases = map.map("aliases");
    for (size_t i = 0; aliases && i < aliases->size(); ++i) alias(aliases->entry(i), out);
    map.finish();
  }

  void alias(const FieldEntry& entry, GatewayConfig* out) {
    const std::string path = fmt::format("models.aliases.{}", entry.key);
    ConfigFields map(entry.value, path, problems_);
    Alias& alias = out->models.aliases[std::string(entry.key)];
    map.line("system", "a text", alias.system);
    Json request = {{"id", "x"}, {"call", "generate"}, {"prompt", ""}};
    if (const auto modules = map.map("modules")) request["modules"] = json_of(*modules);
    if (const auto defaults = map.map("defaults")) {
      alias.defaults = json_of(*defaults);
      for (const char* taken : {"id", "call", "prompt", "tokens", "modules", "stream", "logprobs",
                                "top_logprobs", "constraint"}) {
        if (!alias.defaults.erase(taken)) continue;
        map.fail({fmt::format("{}.defaults.{}: not a default of sampling", path, taken)});
      }
      request.update(alias.defaults);
    }
    map.finish();
    check(request, map, alias);
  }

  /// The wire's own reader knows the fields and their ranges.
  void check(const Json& request, const ConfigFields& map, Alias& alias) {
    std::string id;
    auto decoded = wire::decode_request(write_json(request), wire::Endpoint::kServe, &id);
    if (const auto* error = std::get_if<wire::Error>(&decoded)) {
      return map.fail({fmt::format("{}: {}", map.path(), error->message)});
    }
    alias.modules = std::get<wire::Generate>(std::get<wire::Request>(decoded).call).modules;
  }

  void limits(ConfigFields& top, GatewayConfig* out) {
    const auto value = top.map("limits");
    if (!value) return;
    ConfigFields map(*value, "limits", problems_);
    const auto size = [&map](const IntRange& range, size_t& field) {
      int64_t number = 0;
      if (map.integer(range, number)) field = static_cast<size_t>(number);
    };
    const auto seconds = [&map](std::string_view key, std::chrono::seconds& field) {
      int64_t number = 0;
      if (map.integer({key, 1, 86'400}, number)) field = std::chrono::seconds(number);
    };
    size({"connections", 1, 1'000'000}, out->http.connections);
    size({"header_bytes", 1024, 1 << 20}, out->http.header_bytes);
    size({"body_bytes", 1024, 4 << 20}, out->http.body_bytes);
    size({"unread_bytes", 4096, 64 << 20}, out->http.unread_bytes);
    seconds("header_seconds", out->http.header);
    seconds("body_seconds", out->http.body);
    seconds("idle_seconds", out->http.idle);
    seconds("write_seconds", out->http.write);
    seconds("drain_seconds", out->drain);
    map.finish();
  }

  Problems& problems_;
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
  if (root->kind != YamlNode::Kind::kNull)
    Reader(problems, base_dir).read(field_value(*root), &config);
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
