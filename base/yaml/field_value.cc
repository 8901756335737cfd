#include "base/yaml/field_value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "base/quote.h"
#include "base/utf8.h"

namespace chimera {
namespace {

constexpr size_t kMaxShownScalar = 80;  // bytes of a scalar in a message

bool is_plain(const YamlNode& node) { return node.kind == YamlNode::Kind::kScalar && node.plain; }

bool is_boolean(std::string_view text) { return text == "true" || text == "false"; }

std::string_view without_plus(std::string_view text) {
  return text.starts_with('+') ? text.substr(1) : text;
}

bool looks_integer(std::string_view text) {
  if (text.starts_with('-') || text.starts_with('+')) text.remove_prefix(1);
  return !text.empty() &&
         std::all_of(text.begin(), text.end(), [](char c) { return c >= '0' && c <= '9'; });
}

/// All of `text` as a T.
template <class T>
std::optional<T> parsed(std::string_view text) {
  T value{};
  text = without_plus(text);
  const auto [end, error] = std::from_chars(text.data(), text.data() + text.size(), value);
  if (error != std::errc() || end != text.data() + text.size()) return std::nullopt;
  return value;
}

std::optional<double> parse_number(std::string_view text) {
  const std::optional<double> value = parsed<double>(text);
  return value && std::isfinite(*value) ? value : std::nullopt;
}

class YamlFieldFormat final : public FieldFormat {
 public:
  Kind kind(const void* n) const override {
    switch (node(n).kind) {
      case YamlNode::Kind::kNull:
        return Kind::kNull;
      case YamlNode::Kind::kScalar:
        return Kind::kScalar;
      case YamlNode::Kind::kList:
        return Kind::kList;
      case YamlNode::Kind::kMap:
        return Kind::kMap;
    }
    return Kind::kNull;
  }
  Place place(const void* n) const override { return node(n).place(); }
  std::string found(const void* n) const override {
    if (!is_plain(node(n))) return node(n).found(kMaxShownScalar);
    const std::string_view begin = cut_utf8(node(n).text, kMaxShownScalar);
    std::string out;
    append_visible(begin, out);
    return begin.size() < node(n).text.size() ? out + "…" : out;
  }
  std::string written(const void* n) const override { return node(n).flow(); }
  bool is_integer(const void* n) const override {
    return is_plain(node(n)) && looks_integer(node(n).text);
  }
  std::optional<int64_t> integer(const void* n) const override {
    return is_integer(n) ? parsed<int64_t>(node(n).text) : std::nullopt;
  }
  std::optional<double> number(const void* n) const override {
    return is_plain(node(n)) ? parse_number(node(n).text) : std::nullopt;
  }
  std::optional<bool> boolean(const void* n) const override {
    if (!is_plain(node(n)) || !is_boolean(node(n).text)) return std::nullopt;
    return node(n).text == "true";
  }
  std::optional<std::string_view> text(const void* n) const override {
    if (is_plain(node(n)) &&
        (is_boolean(node(n).text) || looks_integer(node(n).text) || number(n))) {
      return std::nullopt;
    }
    return scalar(n);
  }
  std::optional<std::string_view> scalar(const void* n) const override {
    if (node(n).kind != YamlNode::Kind::kScalar) return std::nullopt;
    return node(n).text;
  }
  size_t size(const void* n) const override {
    return node(n).kind == YamlNode::Kind::kList ? node(n).items.size() : node(n).entries.size();
  }
  const void* item(const void* n, size_t index) const override { return &node(n).items[index]; }
  Entry entry(const void* n, size_t index) const override {
    const YamlEntry& found = node(n).entries[index];
    return {found.key.text, found.key.place(), &found.value};
  }
  const void* find(const void* n, std::string_view key) const override {
    for (const YamlEntry& entry : node(n).entries) {
      if (entry.key.text == key) return &entry.value;
    }
    return nullptr;
  }

 private:
  static const YamlNode& node(const void* n) { return *static_cast<const YamlNode*>(n); }
};

}  // namespace

FieldValue field_value(const YamlNode& node) {
  static const YamlFieldFormat kFormat;
  return {&node, kFormat};
}

}  // namespace chimera
