#include <fmt/format.h>
#include <sys/stat.h>

#include <set>

#include "base/io/digest.h"
#include "base/io/env.h"
#include "base/yaml/field_value.h"
#include "clients/gateway/config/config.h"
#include "clients/gateway/config/fields.h"

namespace chimera::gateway {
namespace {

constexpr size_t kMaxKeysBytes = 1u << 20;
constexpr int64_t kMaxStreams = 1'000'000;

void read_rights(ConfigFields& map, Principal& out) {
  constexpr std::string_view kRights = "a list of generate, observe and change";
  std::vector<std::string> rights;
  map.lines("rights", kRights, rights);
  for (const std::string& right : rights) {
    const std::optional<Right> named = kRightNames.find(right);
    if (!named) {
      map.bad("rights", *map.find("rights"), kRights);
    } else {
      out.allow(*named);
    }
  }
  if (rights.empty()) {
    map.fail({fmt::format("{}: none (expected {})", map.path_of("rights"), kRights)});
  }
}

void read_entry(const FieldValue& value, const std::string& path, Problems& problems,
                std::set<std::string>& seen, Keys& out) {
  ConfigFields map(value, path, problems);
  if (!map.valid()) return;
  Principal principal;
  std::string digest;
  constexpr std::string_view kDigest = "sha256:…, as chimera-gateway --new-key prints it";
  map.line("principal", "a name", principal.name, ConfigFields::kRequired);
  if (map.line("digest", kDigest, digest, ConfigFields::kRequired)) {
    if (!is_sha256(digest)) {
      map.bad("digest", *map.find("digest"), kDigest);
    } else if (!seen.insert(digest).second) {
      map.fail({map.path_of("digest") + ": stands above already"});
    }
  }
  read_rights(map, principal);
  if (map.has("modules")) {
    map.lines("modules", "a list of names of modules", principal.modules.emplace());
  }
  int64_t streams = 0;
  if (map.integer({"streams", 1, kMaxStreams}, streams)) principal.streams = streams;
  map.finish();
  out.add(digest, std::move(principal));
}

}  // namespace

Result<Keys> parse_keys(std::string_view yaml, const std::string& label) {
  YamlProblems problems(label);
  const auto root = parse_yaml(yaml, label, problems);
  if (!root.ok()) return root.status();
  Keys keys;
  ConfigFields top(field_value(*root), "", problems);
  std::string format;
  if (top.line("chimera", "keys/1", format, ConfigFields::kRequired) && format != "keys/1") {
    top.bad("chimera", *top.find("chimera"), "keys/1");
  }
  const auto list = top.list("keys", "a list");
  std::set<std::string> seen;
  for (size_t i = 0; list && i < list->size(); ++i) {
    read_entry((*list)[i], fmt::format("keys[{}]", i), problems, seen, keys);
  }
  top.finish();
  if (!problems.empty()) return problems.status("docs/gateway.md shows such a file");
  return keys;
}

Result<Keys> read_keys(const std::string& file) {
  struct stat info {};
  if (stat(file.c_str(), &info) == 0 && (info.st_mode & 022) != 0) {
    return Status(Code::kPermissionDenied,
                  fmt::format("{}: mode {:o} (expected one that nobody else may write)", file,
                              info.st_mode & 0777U),
                  fmt::format("chmod go-w {}", file));
  }
  const auto text = read_file(Env::system(), file, kMaxKeysBytes);
  if (!text.ok()) return text.status();
  return parse_keys(*text, file);
}

}  // namespace chimera::gateway
