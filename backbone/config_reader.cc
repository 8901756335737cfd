// ConfigReader: tolerant of spellings, strict about meaning.
#include <cmath>
#include <limits>
#include <nlohmann/json.hpp>

#include "backbone/family.h"

namespace chimera {

using json = nlohmann::json;

struct ConfigReader::Json {
  json root;
};

namespace {

/// The value as it stands in the file, cut to a readable length.
std::string shown(const json& value) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

/// Integers may be written 64 or 64.0.
std::optional<int64_t> as_integer(const json& v) {
  if (v.is_number_unsigned()) {
    const uint64_t u = v.get<uint64_t>();
    if (u > static_cast<uint64_t>(std::numeric_limits<int64_t>::max())) return std::nullopt;
    return static_cast<int64_t>(u);
  }
  if (v.is_number_integer()) return v.get<int64_t>();
  if (!v.is_number_float()) return std::nullopt;
  const double d = v.get<double>();
  if (d != std::floor(d) || std::fabs(d) > 9e15) return std::nullopt;
  return static_cast<int64_t>(d);
}

std::string_view rope_type_name(RopeType type) {
  return type == RopeType::kDefault ? "default" : "linear";
}

std::string rope_type_list(std::span<const RopeType> types) {
  std::string list;
  for (RopeType t : types) {
    if (!list.empty()) list += ", ";
    list += rope_type_name(t);
  }
  return list;
}

}  // namespace

ConfigReader::ConfigReader(std::string_view text, std::string_view label)
    : label_(label), json_(std::make_unique<Json>()) {
  json_->root = json::parse(text, nullptr, /*allow_exceptions=*/false);
  if (json_->root.is_discarded())
    fail(Code::kDataCorrupt, "not valid JSON", "expected the config.json of a checkpoint");
  else if (!json_->root.is_object())
    fail(Code::kDataCorrupt,
         "holds " + std::string(json_->root.type_name()) + ", expected an object");
  if (!json_->root.is_object()) json_->root = json::object();
}

ConfigReader::~ConfigReader() = default;

void ConfigReader::fail(Code code, std::string message, std::string hint) {
  if (status_.ok()) status_ = Status(code, label_ + ": " + std::move(message), std::move(hint));
}

void ConfigReader::wrong(std::string_view key, std::string_view expected) {
  fail(Code::kInvalidArgument, std::string(key) + " is " + shown(json_->root[std::string(key)]) +
                                   ", expected " + std::string(expected));
}

void ConfigReader::unsupported(std::string_view key, std::string_view found,
                               std::string_view supported) {
  fail(Code::kUnimplemented,
       std::string(key) + " is " + std::string(found) + "; supported: " + std::string(supported),
       "use a checkpoint without this option");
}

bool ConfigReader::has(std::string_view key) const {
  const auto it = json_->root.find(std::string(key));
  return it != json_->root.end() && !it->is_null();
}

std::string ConfigReader::text(std::string_view key, std::string_view fallback) {
  if (!has(key)) return std::string(fallback);
  const json& v = json_->root[std::string(key)];
  if (!v.is_string()) wrong(key, "a string");
  return v.is_string() ? v.get<std::string>() : std::string(fallback);
}

int64_t ConfigReader::integer(std::string_view key, int64_t fallback, int64_t least, int64_t most) {
  if (!has(key)) return fallback;
  const std::optional<int64_t> v = as_integer(json_->root[std::string(key)]);
  if (v && *v >= least && *v <= most) return *v;
  wrong(key, "an integer from " + std::to_string(least) + " to " + std::to_string(most));
  return fallback;
}

int64_t ConfigReader::required(std::string_view key, int64_t least, int64_t most) {
  if (has(key)) return integer(key, 0, least, most);
  fail(Code::kInvalidArgument, std::string(key) + " is missing", "every config.json states it");
  return 0;
}

double ConfigReader::number(std::string_view key, double fallback, double above, double most) {
  if (!has(key)) return fallback;
  const json& v = json_->root[std::string(key)];
  if (v.is_number()) {
    const double d = v.get<double>();
    if (d > above && d <= most) return d;
  }
  wrong(key, "a number above " + shown(json(above)) + ", at most " + shown(json(most)));
  return fallback;
}

bool ConfigReader::boolean(std::string_view key, bool fallback) {
  if (!has(key)) return fallback;
  const json& v = json_->root[std::string(key)];
  if (v.is_boolean()) return v.get<bool>();
  const std::optional<int64_t> i = as_integer(v);
  if (i && (*i == 0 || *i == 1)) return *i == 1;
  wrong(key, "true or false");
  return fallback;
}

std::vector<int32_t> ConfigReader::ids(std::string_view key) {
  std::vector<int32_t> out;
  if (!has(key)) return out;
  const json& v = json_->root[std::string(key)];
  const json list = v.is_array() ? v : json::array({v});
  for (const json& item : list) {
    const std::optional<int64_t> id = as_integer(item);
    if (!id || *id < -1 || *id > std::numeric_limits<int32_t>::max()) {
      wrong(key, "a token id or a list of token ids");
      return {};
    }
    if (*id >= 0) out.push_back(static_cast<int32_t>(*id));  // -1 means none in old files
  }
  return out;
}

void ConfigReader::refuse_unless(std::string_view key,
                                 std::initializer_list<std::string_view> allowed,
                                 std::string_view supported) {
  if (!has(key)) return;
  const json& v = json_->root[std::string(key)];
  if (v.is_boolean() && !v.get<bool>()) return;
  const std::string found = shown(v);
  for (std::string_view a : allowed)
    if (found == a) return;
  unsupported(key, found, supported);
}

void ConfigReader::all_equal(std::string_view key, std::string_view value) {
  if (!has(key)) return;
  const json& v = json_->root[std::string(key)];
  const json list = v.is_array() ? v : json::array({v});
  for (const json& item : list)
    if (!item.is_string() || item.get_ref<const std::string&>() != value)
      return unsupported(key, shown(v), std::string(value) + " for every layer");
}

void ConfigReader::rope(double default_theta, std::span<const RopeType> supported,
                        ModelConfig& config) {
  config.rope_theta = number("rope_theta", default_theta, 0.0, 1e30);
  json scaling = json::object();
  std::string_view where;
  for (std::string_view key :
       {std::string_view("rope_scaling"), std::string_view("rope_parameters")}) {
    if (!has(key)) continue;
    const json& v = json_->root[std::string(key)];
    if (!v.is_object()) return wrong(key, "an object or null");
    scaling.update(v);  // rope_parameters (5.x) has the last word
    where = key;
  }
  const std::string prefix = std::string(where) + ".";
  for (const auto& [key, v] : scaling.items())
    if (v.is_object())
      return unsupported(prefix + key, shown(v), "one set of rope parameters for all layers");
  if (const auto it = scaling.find("rope_theta"); it != scaling.end() && !it->is_null()) {
    if (!it->is_number() || !(it->get<double>() > 0))
      return fail(Code::kInvalidArgument,
                  prefix + "rope_theta is " + shown(*it) + ", expected a positive number");
    config.rope_theta = it->get<double>();
  }
  if (const auto it = scaling.find("partial_rotary_factor");
      it != scaling.end() && !it->is_null() && !(it->is_number() && it->get<double>() == 1.0))
    return unsupported(prefix + "partial_rotary_factor", shown(*it), "1 (all channels rotated)");

  std::string key = "rope_type";
  if (!scaling.contains(key) || scaling[key].is_null()) key = "type";  // legacy spelling
  const json type = scaling.value(key, json());
  if (type.is_null()) {
    config.rope_type = RopeType::kDefault;
    if (const auto it = scaling.find("factor"); it != scaling.end() && !it->is_null())
      return fail(Code::kInvalidArgument,
                  prefix + "factor is " + shown(*it) + " without a rope_type",
                  "name the scaling in " + prefix + "rope_type");
    return;
  }
  for (RopeType candidate : supported) {
    if (!type.is_string() || type.get_ref<const std::string&>() != rope_type_name(candidate))
      continue;
    config.rope_type = candidate;
    if (candidate == RopeType::kDefault) return;
    const json factor = scaling.value("factor", json());
    if (!factor.is_number() || !(factor.get<double>() >= 1.0))
      return fail(Code::kInvalidArgument,
                  prefix + "factor is " + shown(factor) + ", expected a number of at least 1");
    config.rope_factor = factor.get<double>();
    return;
  }
  unsupported(prefix + key, shown(type), rope_type_list(supported));
}

}  // namespace chimera
