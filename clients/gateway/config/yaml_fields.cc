#include "clients/gateway/config/yaml_fields.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>
#include <charconv>

#include "base/suggest.h"

namespace chimera::gateway {

bool is_text(const YamlNode& node) {
  if (node.kind != YamlNode::Kind::kScalar || node.text.empty()) return false;
  if (!node.plain) return true;
  double ignored = 0.0;
  const char* end = node.text.data() + node.text.size();
  const auto [stop, error] = std::from_chars(node.text.data(), end, ignored);
  return (error != std::errc() || stop != end) && node.text != "true" && node.text != "false";
}

YamlFields::YamlFields(const YamlNode& node, std::string path, YamlProblems& problems)
    : node_(node), path_(std::move(path)), problems_(problems) {
  if (node.kind == YamlNode::Kind::kMap) return;
  problems_.add(node, fmt::format("{}found {} (expected a map of keys)",
                                  path_.empty() ? "" : path_ + ": ", node.found()));
}

std::string YamlFields::path_of(std::string_view key) const {
  return path_.empty() ? std::string(key) : fmt::format("{}.{}", path_, key);
}

const YamlNode* YamlFields::find(std::string_view key) {
  known_.push_back(key);
  for (const auto& [name, value] : node_.entries) {
    if (name.text == key) return &value;
  }
  return nullptr;
}

void YamlFields::bad(std::string_view key, const YamlNode& at, std::string_view expected) {
  problems_.add(at, path_of(key), expected);
}

bool YamlFields::text(std::string_view key, std::string& out, std::string_view expected) {
  const YamlNode* node = find(key);
  if (node == nullptr) return false;
  if (!is_text(*node)) {
    bad(key, *node, expected);
    return false;
  }
  out = node->text;
  return true;
}

void YamlFields::integer(std::string_view key, int64_t min, int64_t max, int64_t& out) {
  const YamlNode* node = find(key);
  if (node == nullptr) return;
  int64_t value = 0;
  const char* end = node->text.data() + node->text.size();
  const auto [stop, error] = std::from_chars(node->text.data(), end, value);
  const bool whole =
      node->kind == YamlNode::Kind::kScalar && node->plain && error == std::errc() && stop == end;
  if (!whole || value < min || value > max) {
    return bad(key, *node, fmt::format("a whole number from {} to {}", min, max));
  }
  out = value;
}

void YamlFields::list(std::string_view key, std::vector<std::string>& out,
                      std::string_view expected) {
  const YamlNode* node = find(key);
  if (node == nullptr) return;
  if (node->kind != YamlNode::Kind::kList) return bad(key, *node, expected);
  for (const YamlNode& item : node->items) {
    if (is_text(item)) {
      out.push_back(item.text);
    } else {
      bad(key, item, expected);
    }
  }
}

int YamlFields::choice(std::string_view key, std::initializer_list<std::string_view> spellings) {
  const YamlNode* node = find(key);
  if (node == nullptr) return -1;
  const auto found = std::find(spellings.begin(), spellings.end(), node->text);
  if (node->kind == YamlNode::Kind::kScalar && found != spellings.end()) {
    return static_cast<int>(found - spellings.begin());
  }
  bad(key, *node, fmt::format("{}", fmt::join(spellings, " or ")));
  return -1;
}

void YamlFields::finish() {
  for (const auto& [key, value] : node_.entries) {
    if (std::find(known_.begin(), known_.end(), key.text) != known_.end()) continue;
    const std::string_view near = nearest(key.text, known_);
    problems_.add(key, near.empty() ? fmt::format("{}: unknown key (expected {})",
                                                  path_of(key.text), fmt::join(known_, ", "))
                                    : fmt::format("{}: unknown key (did you mean {}?)",
                                                  path_of(key.text), near));
  }
}

}  // namespace chimera::gateway
