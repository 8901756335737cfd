#include "daemon/security/clients_file.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <filesystem>
#include <set>

#include "base/io/env.h"
#include "base/moment.h"
#include "base/quote.h"
#include "base/limits.h"
#include "base/yaml/tree.h"
#include "clients/keys/certificate.h"
#include "daemon/config/reader.h"
#include "daemon/security/writers.h"

namespace chimera {
namespace {

constexpr size_t kMaxBytes = 4u << 20;  // some 20,000 clients
constexpr size_t kMaxPatterns = kMaxModules;
constexpr std::string_view kTopKeys[] = {"chimera", "clients"};
constexpr std::string_view kClientKeys[] = {"name",    "public_key", "uid",   "roles",
                                            "modules", "expires",    "limits"};
constexpr std::string_view kLimitKeys[] = {"in_flight", "queued", "tokens_per_minute", "max_tokens",
                                           "max_context"};
constexpr int64_t kMostOfLimit = 1'000'000'000;

bool is_name(std::string_view text) {
  return !text.empty() && text.size() <= 64 &&
         text.find_first_not_of(
             "abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ0123456789._-") ==
             std::string_view::npos;
}

class Reader {
 public:
  Reader(YamlProblems& problems, ClientList& out, std::set<std::string>& names)
      : problems_(problems), out_(out), names_(names) {}

  void file(const YamlNode& root) {
    const MapReader top(root, "", kTopKeys, problems_);
    if (!top.valid()) return;
    std::string format;
    if (top.find("chimera") == nullptr) {
      problems_.add(top.at(), "chimera: missing (expected clients/1)");
    } else if (top.string("chimera", "clients/1", &format) && format != "clients/1") {
      top.bad("chimera", *top.find("chimera"), "clients/1");
    }
    const YamlNode* list = top.find("clients");
    if (list == nullptr) return problems_.add(top.at(), "clients: missing (expected a list)");
    if (list->kind == YamlNode::Kind::kNull) return;
    if (list->kind != YamlNode::Kind::kList) return top.bad("clients", *list, "a list of clients");
    for (size_t i = 0; i < list->items.size(); ++i) {
      client(list->items[i], fmt::format("clients[{}]", i));
    }
  }

 private:
  void client(const YamlNode& node, const std::string& path) {
    const MapReader map(node, path, kClientKeys, problems_);
    if (!map.valid()) return;
    Principal read;
    name(map, &read.name);
    roles(map, &read.roles);
    modules(map, read.roles, &read.modules);
    expires(map, &read.expires);
    limits(map, &read.limits);
    identity(map, std::make_shared<const Principal>(std::move(read)));
  }

  void missing(const MapReader& map, std::string_view key, std::string_view expected) {
    problems_.add(map.at(), fmt::format("{}: missing (expected {})", map.path_of(key), expected));
  }

  void name(const MapReader& map, std::string* out) {
    constexpr std::string_view kExpected = "1 to 64 of a-z, A-Z, 0-9, '.', '_' and '-'";
    const YamlNode* node = map.find("name");
    if (node == nullptr) return missing(map, "name", kExpected);
    if (!map.string("name", kExpected, out)) return;
    if (!is_name(*out)) return map.bad("name", *node, kExpected);
    if (!names_.insert(*out).second) map.bad("name", *node, "a name that no other client has");
  }

  void roles(const MapReader& map, Roles* out) {
    const std::string expected = "a list of " + kRoleNames.choices();
    const YamlNode* list = map.find("roles");
    if (list == nullptr) return missing(map, "roles", expected);
    if (list->kind != YamlNode::Kind::kList || list->items.empty()) {
      return map.bad("roles", *list, expected);
    }
    for (const YamlNode& item : list->items) {
      const auto role = is_string(item) ? kRoleNames.find(item.text) : std::nullopt;
      if (role) out->add(*role);
      if (!role) map.bad("roles", item, kRoleNames.choices());
    }
  }

  void modules(const MapReader& map, Roles roles, ModuleRightsPtr* out) {
    constexpr std::string_view kExpected = "all, or a list of names and patterns";
    const YamlNode* node = map.find("modules");
    if (node == nullptr) return missing(map, "modules", kExpected);
    if (node->kind == YamlNode::Kind::kScalar && node->text == "all") return;
    if (node->kind != YamlNode::Kind::kList || node->items.size() > kMaxPatterns) {
      return map.bad("modules", *node, kExpected);
    }
    std::vector<std::string> patterns;
    for (const YamlNode& item : node->items) {
      if (is_string(item) && !item.text.empty() && item.text.size() <= 128) {
        patterns.push_back(item.text);
      } else {
        map.bad("modules", item, "a name or pattern of at most 128 bytes");
      }
    }
    // Who sees or changes the composition sees all of it.
    if (roles.meets(Roles(Role::kObserve, Role::kOperate, Role::kAdmin))) {
      return map.bad("modules", *node, "all, for the roles observe, operate and admin");
    }
    *out = std::make_shared<const ModuleRights>(std::move(patterns));
  }

  void expires(const MapReader& map, std::optional<std::chrono::system_clock::time_point>* out) {
    constexpr std::string_view kExpected =
        "a day or moment of UTC: 2027-01-31 or "
        "2027-01-31T18:00:00Z";
    std::string text;
    if (map.find("expires") == nullptr || !map.string("expires", kExpected, &text)) return;
    *out = parse_moment(text);
    if (!*out) map.bad("expires", *map.find("expires"), kExpected);
  }

  void limits(const MapReader& client, ClientLimits* out) {
    const YamlNode* node = client.find("limits");
    if (node == nullptr) return;
    const MapReader map(*node, client.path_of("limits"), kLimitKeys, problems_);
    if (!map.valid()) return;
    std::optional<int64_t>* const values[] = {&out->in_flight, &out->queued,
                                              &out->tokens_per_minute, &out->max_tokens,
                                              &out->max_context};
    for (size_t i = 0; i < std::size(kLimitKeys); ++i) {
      int64_t value = 0;
      // Of a context one token is the answer's.
      const int64_t least = kLimitKeys[i] == "max_context" ? 2 : 1;
      map.integer(kLimitKeys[i], least, kMostOfLimit, &value);
      if (value > 0) *values[i] = value;
    }
  }

  void identity(const MapReader& map, PrincipalPtr principal) {
    const YamlNode* key = map.find("public_key");
    const YamlNode* uid = map.find("uid");
    if (key == nullptr && uid == nullptr) {
      return missing(map, "public_key", "the key of the client's .pub file, or uid");
    }
    std::string text;
    if (key != nullptr && map.string("public_key", "a key: 40 characters of Z85", &text)) {
      if (!keys::is_key(text)) {
        map.bad("public_key", *key, "a key: 40 characters of Z85");
      } else if (!out_.by_key.emplace(text, principal).second) {
        map.bad("public_key", *key, "a key that no other client has");
      }
    }
    int64_t user = -1;
    map.integer("uid", 0, 4'294'967'294, &user);
    if (user >= 0 && !out_.by_uid.emplace(static_cast<uid_t>(user), principal).second) {
      map.bad("uid", *uid, "a user that no other client is");
    }
  }

  YamlProblems& problems_;
  ClientList& out_;
  std::set<std::string>& names_;
};

/// The files, sorted: `path` itself or what the directory holds.
Result<std::vector<std::string>> files_of(const std::string& path) {
  std::error_code error;
  if (!std::filesystem::is_directory(path, error)) return std::vector<std::string>{path};
  std::vector<std::string> files;
  for (std::filesystem::directory_iterator it(path, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.ends_with(".yaml") && !name.starts_with('.')) files.push_back(it->path().string());
  }
  if (error) return errno_status(path, error.value());
  std::sort(files.begin(), files.end());
  return files;
}

}  // namespace

Result<ClientList> parse_clients(std::span<const ClientsText> texts) {
  ClientList out;
  std::set<std::string> names;
  std::string problems_of_all;
  for (const ClientsText& text : texts) {
    YamlProblems problems(text.label);
    const Result<YamlNode> root = parse_yaml(text.yaml, text.label, problems);
    if (root.ok()) Reader(problems, out, names).file(*root);
    const Status status = root.ok() ? problems.status("") : root.status();
    if (!status.ok()) problems_of_all += (problems_of_all.empty() ? "" : "\n") + status.message();
  }
  if (!problems_of_all.empty()) return Status(Code::kInvalidArgument, std::move(problems_of_all));
  return out;
}

Result<ClientList> read_clients(const std::string& path) {
  CHIMERA_RETURN_IF_ERROR(check_writers(parent_directory(path)));
  CHIMERA_RETURN_IF_ERROR(check_writers(path));
  const auto files = files_of(path);
  if (!files.ok()) return files.status();
  std::vector<ClientsText> texts;
  for (const std::string& file : *files) {
    CHIMERA_RETURN_IF_ERROR(check_writers(file));
    auto text = read_file(Env::system(), file, kMaxBytes);
    if (!text.ok()) return text.status();
    texts.push_back({file, std::move(*text)});
  }
  return parse_clients(texts);
}

std::string clients_signature(const std::string& path) {
  std::string out;
  const auto files = files_of(path);
  if (!files.ok()) return files.status().message();
  for (const std::string& file : *files) {
    struct stat s {};
    const int error = ::stat(file.c_str(), &s) == 0 ? 0 : errno;
    out += fmt::format("{} {} {} {} {} {}.{} {}.{}\n", file, error, s.st_dev, s.st_ino, s.st_size,
                       s.st_mtim.tv_sec, s.st_mtim.tv_nsec, s.st_ctim.tv_sec, s.st_ctim.tv_nsec);
  }
  return out;
}

}  // namespace chimera
