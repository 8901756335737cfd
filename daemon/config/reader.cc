#include "daemon/config/reader.h"

#include <fmt/format.h>

#include "base/quote.h"
#include "base/suggest.h"
#include "base/utf8.h"
#include "base/yaml/field_value.h"

namespace chimera {
namespace {

constexpr size_t kMaxShown = 80;  // bytes of a key

/// As clients spell it, who look the place up by it: JSON's quotes are no part of a key.
std::string shown_key(std::string_view key) {
  const std::string_view begin = cut_utf8(key, kMaxShown);
  std::string out;
  append_visible(begin, out);
  return begin.size() < key.size() ? out + "…" : out;
}

class DeploymentWording final : public Wording {
 public:
  Problem mismatch(const std::string& path, const std::string& found,
                   std::string_view expected) const override {
    return {
        fmt::format("{}{}found {} (expected {})", path, path.empty() ? "" : ": ", found, expected)};
  }
  Problem missing(const std::string& path, std::string_view key,
                  std::string_view expected) const override {
    return {fmt::format("{}: missing (expected {})", path_of(path, key), expected)};
  }
  Problem unknown(const std::string& path, std::string_view key,
                  std::span<const std::string_view> known) const override {
    const std::string name = path_of(path, shown_key(key));
    const std::string_view near = nearest(key, known);
    if (!near.empty()) return {fmt::format("{}: unknown key (did you mean {}?)", name, near)};
    return {fmt::format("{}: unknown key (expected {})", name, fmt::join(known, ", "))};
  }
  std::string map() const override { return "a map of keys"; }
  std::string integer(const IntRange& range, bool is_integer) const override {
    return fmt::format("{}{}..{}", is_integer ? "" : "a whole number in ", range.min, range.max);
  }
  std::string number(const RealRange& range, bool is_number) const override {
    return fmt::format("{}{}..{}", is_number ? "" : "a number in ", range.min, range.max);
  }
};

const DeploymentWording kWording;

}  // namespace

std::string describe(const YamlNode& node) { return field_value(node).found(); }

bool is_string(const YamlNode& node) { return field_value(node).text().has_value(); }

MapReader::MapReader(const YamlNode& node, std::string name, std::span<const std::string_view> keys,
                     YamlProblems& problems)
    : at_(node), reader_(field_value(node), std::move(name), kWording, problems) {
  reader_.only(keys);
}

const YamlNode* MapReader::find(std::string_view key) const {
  for (const auto& [name, value] : at_.entries) {
    if (name.text == key) return &value;
  }
  return nullptr;
}

void MapReader::bad(std::string_view key, const YamlNode& node, std::string_view expected) const {
  reader_.bad(key, field_value(node), expected);
}

void MapReader::integer(std::string_view key, int64_t min, int64_t max, int64_t* out) const {
  reader_.integer({key, min, max}, *out);
}

void MapReader::number(std::string_view key, double limit, float* out) const {
  double value = 0.0;
  if (reader_.number({key, -limit, limit}, value)) *out = static_cast<float>(value);
}

void MapReader::boolean(std::string_view key, bool* out) const { reader_.boolean(key, *out); }

bool MapReader::string(std::string_view key, std::string_view expected, std::string* out) const {
  const std::optional<FieldValue> value = reader_.find(key);
  if (!value) return false;
  const std::optional<std::string_view> text = value->text();
  if (text && !text->empty()) {
    *out = *text;
    return true;
  }
  reader_.bad(key, *value, expected);
  return false;
}

}  // namespace chimera
