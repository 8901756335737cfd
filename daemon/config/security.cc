#include "daemon/config/security.h"

#include <fmt/format.h>

#include "daemon/config/keys.h"

namespace chimera {
namespace {

constexpr size_t kMaxVersion = 64;
constexpr size_t kMaxRoots = 64;
constexpr int64_t kMostMs = 3'600'000;  // an hour, the most that a manifest can ask for

void read_roots(const MapReader& map, const ValueReader& values, TrustConfig* out) {
  const YamlNode* list = map.find("roots");
  if (list == nullptr) return;
  if (list->kind != YamlNode::Kind::kList || list->items.empty() ||
      list->items.size() > kMaxRoots) {
    return map.bad("roots", *list, fmt::format("a list of 1 to {} directories", kMaxRoots));
  }
  for (size_t i = 0; i < list->items.size(); ++i) {
    std::string dir;
    const std::string name = fmt::format("trust.roots[{}]", i);
    if (values.resolve(list->items[i], name, "a directory", &dir)) out->roots.push_back(dir);
  }
}

void read_minimum(const MapReader& map, TrustConfig* out) {
  const YamlNode* minimum = map.find("minimum");
  if (minimum == nullptr) return;
  if (minimum->kind != YamlNode::Kind::kMap) {
    return map.bad("minimum", *minimum, "a map from modules to versions");
  }
  for (const YamlEntry& entry : minimum->entries) {
    const YamlNode& version = entry.value;
    if (version.kind == YamlNode::Kind::kScalar && !version.text.empty() &&
        version.text.size() <= kMaxVersion) {
      out->minimum[entry.key.text] = version.text;
    } else {
      map.bad("minimum." + entry.key.text, version, "a version, e.g. 1.2.0");
    }
  }
}

}  // namespace

void read_security(const MapReader& top, const ValueReader& values, YamlProblems& problems,
                   SecurityConfig* out) {
  const YamlNode* node = top.find("security");
  if (node == nullptr) return;
  const MapReader map(*node, "security", kSecurityKeys, problems);
  if (!map.valid()) return;
  values.path(map, "key", "a secret key, as `chimera key new` writes it", &out->key);
  values.path(map, "clients", "a clients file or a directory of them", &out->clients);
}

void read_trust(const MapReader& top, const ValueReader& values, YamlProblems& problems,
                TrustConfig* out) {
  const YamlNode* node = top.find("trust");
  if (node == nullptr) return;
  const MapReader map(*node, "trust", kTrustKeys, problems);
  if (!map.valid()) return;
  read_roots(map, values, out);
  values.path(map, "keys", "a directory of public keys", &out->keys);
  std::string require;
  constexpr std::string_view kExpected = "any or signed";
  if (map.string("require", kExpected, &require)) {
    if (require != "any" && require != "signed")
      map.bad("require", *map.find("require"), kExpected);
    out->require_signed = require == "signed";
  }
  if (out->require_signed && map.find("keys") == nullptr) {
    problems.add(map.at(),
                 "trust.keys: missing (expected a directory of public keys, beside "
                 "`require: signed`)");
  }
  read_minimum(map, out);
}

void read_libraries(const MapReader& top, const ValueReader& values, YamlProblems& problems,
                    LibrariesConfig* out) {
  const YamlNode* node = top.find("libraries");
  if (node == nullptr) return;
  const MapReader map(*node, "libraries", kLibrariesKeys, problems);
  if (!map.valid()) return;
  std::string text;
  constexpr std::string_view kExpected = "allow or refuse";
  if (map.string("in_process", kExpected, &text)) {
    if (text != "allow" && text != "refuse") {
      map.bad("in_process", *map.find("in_process"), kExpected);
    }
    out->in_process = text == "allow";
  }
  map.integer("max_deadline_ms", 1, kMostMs, &out->max_deadline_ms);
  map.integer("max_load_ms", 1, kMostMs, &out->max_load_ms);
  out->max_step_ms = out->max_deadline_ms;
  map.integer("max_step_ms", 1, kMostMs, &out->max_step_ms);
  std::optional<uint64_t> memory;
  values.bytes(map, "max_memory", &memory);
  out->max_memory = memory.value_or(out->max_memory);
}

}  // namespace chimera
