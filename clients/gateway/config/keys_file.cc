#include <fmt/format.h>
#include <sys/stat.h>

#include <set>

#include "base/io/digest.h"
#include "base/io/env.h"
#include "base/yaml/tree.h"
#include "clients/gateway/config/config.h"
#include "clients/gateway/config/yaml_fields.h"

namespace chimera::gateway {
namespace {

constexpr size_t kMaxBytes = 1u << 20;
constexpr int64_t kMaxStreams = 1'000'000;

void read_entry(const YamlNode& node, const std::string& path, YamlProblems& problems,
                std::set<std::string>& seen, Keys& out) {
  YamlFields map(node, path, problems);
  Principal principal;
  std::string digest;
  constexpr std::string_view kDigest = "sha256:…, as chimera-gateway --new-key prints it";
  if (!map.text("principal", principal.name, "a name")) {
    if (map.find("principal") == nullptr) problems.add(node, path + ".principal: missing");
  }
  if (!map.text("digest", digest, kDigest)) {
    if (map.find("digest") == nullptr) problems.add(node, path + ".digest: missing");
  } else if (!is_sha256(digest)) {
    map.bad("digest", *map.find("digest"), kDigest);
  } else if (!seen.insert(digest).second) {
    problems.add(*map.find("digest"), path + ".digest: stands above already");
  }
  std::vector<std::string> rights;
  constexpr std::string_view kRights = "a list of generate, observe and change";
  map.list("rights", rights, kRights);
  for (const std::string& right : rights) {
    if (right == "generate") {
      principal.generate = true;
    } else if (right == "observe") {
      principal.observe = true;
    } else if (right == "change") {
      principal.change = true;
    } else {
      map.bad("rights", *map.find("rights"), kRights);
    }
  }
  if (rights.empty())
    problems.add(node, fmt::format("{}.rights: none (expected {})", path, kRights));
  if (map.find("modules") != nullptr) {
    map.list("modules", principal.modules.emplace(), "a list of names of modules");
  }
  int64_t streams = 0;
  map.integer("streams", 1, kMaxStreams, streams);
  if (streams > 0) principal.streams = streams;
  map.finish();
  out.add(digest, std::move(principal));
}

}  // namespace

Result<Keys> parse_keys(std::string_view yaml, const std::string& label) {
  YamlProblems problems(label);
  const auto root = parse_yaml(yaml, label, problems);
  if (!root.ok()) return root.status();
  Keys keys;
  YamlFields top(*root, "", problems);
  std::string format;
  if (!top.text("chimera", format, "keys/1") || format != "keys/1") {
    problems.add(*root, "chimera: not keys/1 (expected `chimera: keys/1`)");
  }
  if (const YamlNode* list = top.find("keys")) {
    if (list->kind != YamlNode::Kind::kList) top.bad("keys", *list, "a list");
    std::set<std::string> seen;
    for (size_t i = 0; i < list->items.size(); ++i) {
      read_entry(list->items[i], fmt::format("keys[{}]", i), problems, seen, keys);
    }
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
  const auto text = read_file(Env::system(), file, kMaxBytes);
  if (!text.ok()) return text.status();
  return parse_keys(*text, file);
}

}  // namespace chimera::gateway
