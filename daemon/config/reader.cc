#include "daemon/config/reader.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/quote.h"
#include "base/suggest.h"
#include "base/utf8.h"
#include "daemon/config/keys.h"

namespace chimera {
namespace {

bool is_plain(const YamlNode& node) { return node.kind == YamlNode::Kind::kScalar && node.plain; }

// Decimal digits with an optional sign; other YAML spellings (0x, 1_000) surprise people.
bool looks_integer(std::string_view text) {
  if (!text.empty() && (text.front() == '-' || text.front() == '+')) text.remove_prefix(1);
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

bool parse_double(std::string_view text, double* out) {
  if (!text.empty() && text.front() == '+') text.remove_prefix(1);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), *out);
  return error == std::errc() && end == text.data() + text.size() && std::isfinite(*out);
}

bool looks_boolean(std::string_view text) { return text == "true" || text == "false"; }

/// A scalar as it is written, cut to a readable length.
constexpr size_t kMaxShown = 80;

std::string shown_key(const YamlNode& node) {
  const std::string_view begin = cut_utf8(node.text, kMaxShown);
  std::string out;
  append_visible(begin, out);
  return begin.size() < node.text.size() ? out + "…" : out;
}

std::string shown(const YamlNode& node) {
  return node.plain ? shown_key(node) : quote(node.text, kMaxShown);
}

std::string range_text(int64_t min, int64_t max) { return fmt::format("{}..{}", min, max); }

}  // namespace

std::string describe(const YamlNode& node) {
  switch (node.kind) {
    case YamlNode::Kind::kNull:
      return "nothing";
    case YamlNode::Kind::kList:
      return "a list";
    case YamlNode::Kind::kMap:
      return "a map";
    case YamlNode::Kind::kScalar:
      break;
  }
  return shown(node);
}

bool is_string(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kScalar) return false;
  if (!node.plain) return true;
  double ignored;
  return !looks_boolean(node.text) && !looks_integer(node.text) &&
         !parse_double(node.text, &ignored);
}

MapReader::MapReader(const YamlNode& node, std::string name, std::span<const std::string_view> keys,
                     YamlProblems& problems)
    : at_(node), name_(std::move(name)), problems_(problems) {
  if (node.kind != YamlNode::Kind::kMap) {
    const std::string what = name_.empty() ? "" : name_ + ": ";
    problems_.add(at_, what + "found " + describe(node) + " (expected a map of keys)");
    return;
  }
  valid_ = true;
  for (const auto& [key_node, value] : node.entries) {
    const std::string& key = key_node.text;
    if (std::find(keys.begin(), keys.end(), key) != keys.end()) continue;
    const std::string_view near = nearest(key, keys);
    // As clients spell it, who look the place up by it: JSON's quotes are no part of a key.
    const std::string as_shown = shown_key(key_node);
    problems_.add(key_node, near.empty() ? fmt::format("{}: unknown key (expected {})",
                                                       path_of(as_shown), fmt::join(keys, ", "))
                                         : fmt::format("{}: unknown key (did you mean {}?)",
                                                       path_of(as_shown), near));
  }
}

const YamlNode* MapReader::find(std::string_view key) const {
  for (const auto& [name, value] : at_.entries) {
    if (name.text == key) return &value;
  }
  return nullptr;
}

std::string MapReader::path_of(std::string_view key) const {
  return name_.empty() ? std::string(key) : fmt::format("{}.{}", name_, key);
}

void MapReader::bad(std::string_view key, const YamlNode& node, std::string_view expected) const {
  problems_.add(node,
                fmt::format("{}: found {} (expected {})", path_of(key), describe(node), expected));
}

void MapReader::integer(std::string_view key, int64_t min, int64_t max, int64_t* out) const {
  const YamlNode* node = find(key);
  if (node == nullptr) return;
  if (!is_plain(*node) || !looks_integer(node->text)) {
    return bad(key, *node, "a whole number in " + range_text(min, max));
  }
  std::string_view text = node->text;
  if (text.front() == '+') text.remove_prefix(1);
  int64_t value = 0;
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size() || value < min || value > max) {
    return bad(key, *node, range_text(min, max));
  }
  *out = value;
}

void MapReader::number(std::string_view key, double limit, float* out) const {
  const YamlNode* node = find(key);
  if (node == nullptr) return;
  double value = 0.0;
  if (!is_plain(*node) || !parse_double(node->text, &value)) {
    return bad(key, *node, fmt::format("a number in -{0}..{0}", limit));
  }
  if (std::abs(value) > limit) return bad(key, *node, fmt::format("-{0}..{0}", limit));
  *out = static_cast<float>(value);
}

void MapReader::boolean(std::string_view key, bool* out) const {
  const YamlNode* node = find(key);
  if (node == nullptr) return;
  if (!is_plain(*node) || !looks_boolean(node->text)) return bad(key, *node, "true or false");
  *out = node->text == "true";
}

bool MapReader::string(std::string_view key, std::string_view expected, std::string* out) const {
  const YamlNode* node = find(key);
  if (node == nullptr) return false;
  if (!is_string(*node) || node->text.empty()) {
    bad(key, *node, expected);
    return false;
  }
  *out = node->text;
  return true;
}

}  // namespace chimera
