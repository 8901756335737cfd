#include "daemon/config/reader.h"

#include <fmt/format.h>

#include "base/yaml/config_wording.h"
#include "base/yaml/field_value.h"

namespace chimera {
namespace {

class DeploymentWording final : public ConfigWording {
 public:
  std::string integer(const IntRange& range, bool is_integer) const override {
    return fmt::format("{}{}..{}", is_integer ? "" : "a whole number in ", range.min, range.max);
  }
  std::string number(const RealRange& range, bool is_number) const override {
    if (range.min_open)
      return fmt::format("{}above {}, up to {}", is_number ? "" : "a number ", range.min,
                         range.max);
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

void MapReader::real(std::string_view key, double min, double max,
                     std::optional<double>* out) const {
  double value = 0.0;
  if (reader_.number({key, min, max}, value)) *out = value;
}

void MapReader::above_zero(std::string_view key, double max, std::optional<double>* out) const {
  double value = 0.0;
  if (reader_.number({key, 0.0, max, /*min_open=*/true}, value)) *out = value;
}

void MapReader::numbers(std::string_view key, double limit,
                        std::map<std::string, double>* out) const {
  const YamlNode* node = find(key);
  if (node == nullptr) return;
  const FieldValue values = field_value(*node);
  if (!values.is_map() || values.size() == 0) {
    return reader_.bad(key, values, "a map from names to numbers, of at least one");
  }
  for (size_t i = 0; i < values.size(); ++i) {
    const FieldEntry entry = values.entry(i);
    const std::string path = fmt::format("{}.{}", key, entry.key);
    double value = 0.0;
    if (reader_.read(entry.value, path, RealRange{path, -limit, limit}, value)) {
      out->emplace(entry.key, value);
    }
  }
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
