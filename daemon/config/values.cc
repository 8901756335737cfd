#include "daemon/config/values.h"

#include <fmt/format.h>

#include <filesystem>

#include "base/bytes.h"
#include "daemon/config/endpoint.h"

namespace chimera {
namespace {

constexpr size_t kMaxPath = 4095;  // PATH_MAX without the final NUL

}  // namespace

bool ValueReader::path(const MapReader& map, std::string_view key, std::string_view expected,
                       std::string* out) const {
  const YamlNode* node = map.find(key);
  return node != nullptr && resolve(*node, map.path_of(key), expected, out);
}

bool ValueReader::resolve(const YamlNode& node, const std::string& name, std::string_view expected,
                          std::string* out) const {
  if (!is_string(node) || node.text.empty() || node.text.size() > kMaxPath ||
      node.text.find('\0') != std::string::npos) {
    problems_.add(node, fmt::format("{}: found {} (expected {})", name, describe(node), expected));
    return false;
  }
  std::filesystem::path path(node.text);
  if (path.is_relative()) {
    if (base_dir_.empty()) {
      problems_.add(node,
                    fmt::format("{}: found {} (expected an absolute path)", name, describe(node)));
      return false;
    }
    path = std::filesystem::path(base_dir_) / path;
  }
  std::string normal = path.lexically_normal().string();
  while (normal.size() > 1 && normal.back() == '/') normal.pop_back();
  *out = std::move(normal);
  return true;
}

void ValueReader::endpoint(const MapReader& map, std::string* out) const {
  std::string text;
  if (!map.string("endpoint", "ipc://PATH or tcp://ADDRESS:PORT", &text)) return;
  Result<std::string> checked = check_endpoint(text, base_dir_);
  if (checked.ok()) {
    *out = std::move(*checked);
  } else {
    problems_.add(*map.find("endpoint"),
                  map.path_of("endpoint") + ": " + checked.status().message());
  }
}

void ValueReader::bytes(const MapReader& map, std::string_view key,
                        std::optional<uint64_t>* out) const {
  const std::string expected = fmt::format("auto, or {}", kBytesExpected);
  std::string text;
  if (!map.string(key, expected, &text) || text == "auto") return;
  *out = parse_bytes(text);
  if (out->value_or(0) > 0) return;
  out->reset();
  map.bad(key, *map.find(key), expected);
}

namespace {

/// One of the spellings of an enum. False when it is absent or wrong.
template <class Names, class E>
bool one_of(const Names& names, const MapReader& map, std::string_view key, E* out) {
  std::string text;
  const std::string expected = names.choices();
  if (!map.string(key, expected, &text)) return false;
  const std::optional<E> named = names.find(text);
  if (named) *out = *named;
  if (!named) map.bad(key, *map.find(key), expected);
  return named.has_value();
}

}  // namespace

bool ValueReader::precision(const MapReader& map, std::string_view key, Precision* out) const {
  return one_of(kPrecisionNames, map, key, out);
}

void ValueReader::kv_format(const MapReader& map, std::string_view key, KvFormat* out) const {
  (void)one_of(kKvFormatNames, map, key, out);
}

}  // namespace chimera
