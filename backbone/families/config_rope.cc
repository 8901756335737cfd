// The rotary part of config.json in its two spellings (model-families sections 0.3 and 0.4).
#include <algorithm>
#include <array>
#include <limits>

#include "backbone/families/family.h"

namespace chimera {
namespace {

// Far above any sensible value; keeps conversions to integers and floats within range.
constexpr double kMostNumber = 1e15;

std::string_view rope_type_name(RopeType type) {
  switch (type) {
    case RopeType::kDefault:
      return "default";
    case RopeType::kLinear:
      return "linear";
    case RopeType::kDynamic:
      return "dynamic";
    case RopeType::kYarn:
      return "yarn";
    case RopeType::kLlama3:
      return "llama3";
  }
  return "";
}

std::string rope_type_list(std::span<const RopeType> types) {
  std::string list;
  for (RopeType t : types) {
    if (!list.empty()) list += ", ";
    list += rope_type_name(t);
  }
  return list;
}

/// The numbers of one rope dictionary; null is absent.
class RopeFields {
 public:
  explicit RopeFields(FieldReader fields) : fields_(std::move(fields)) {}

  /// A number of at least `least` (above it when `open`), or nothing when absent or wrong.
  std::optional<double> number(const char* key, double least, bool open = false) {
    const std::optional<FieldValue> v = fields_.find(key);
    if (!v || v->is_null()) return std::nullopt;
    const double d = v->number().value_or(std::numeric_limits<double>::quiet_NaN());
    if ((d > least || (d == least && !open)) && d <= kMostNumber) return d;
    fields_.bad(key, *v, expected(least, open));
    return std::nullopt;
  }
  double required(const char* key, double least, bool open = false) {
    const std::optional<double> d = number(key, least, open);
    const std::optional<FieldValue> v = fields_.find(key);
    if (!v || v->is_null()) {
      fields_.fail({fields_.path_of(key) + " is null, expected " + expected(least, open)});
    }
    return d.value_or(1.0);
  }
  bool boolean(const char* key, bool fallback) {
    const std::optional<FieldValue> v = fields_.find(key);
    if (v && !v->is_null()) fields_.boolean(key, fallback);
    return fallback;
  }

 private:
  static std::string expected(double least, bool open) {
    return std::string("a number ") + (open ? "above " : "of at least ") +
           ConfigReader::shown(least);
  }

  FieldReader fields_;
};

void read_llama3(RopeFields& fields, RopeParameters& out) {
  // The reference only warns when the two are out of order; equal ones (Llama 4 Scout) leave no
  // band in between.
  out.low_freq_factor = fields.required("low_freq_factor", 0.0, true);
  out.high_freq_factor = fields.required("high_freq_factor", 0.0, true);
  out.original_max_position =
      static_cast<int64_t>(fields.required("original_max_position_embeddings", 1.0));
}

/// `max_position` is the original range unless another is stated.
void read_yarn(RopeFields& fields, int64_t max_position, RopeParameters& out) {
  out.attention_factor = fields.number("attention_factor", 0.0, true);
  out.mscale = fields.number("mscale", 0.0).value_or(0.0);
  const auto beta = [&](const char* key, double fallback) {
    const double stated = fields.number(key, 0.0).value_or(0.0);
    return stated > 0.0 ? stated : fallback;  // 0 and null mean the default
  };
  out.beta_fast = beta("beta_fast", 32.0);
  out.beta_slow = beta("beta_slow", 1.0);
  out.truncate = fields.boolean("truncate", true);
  out.original_max_position =
      static_cast<int64_t>(fields.number("original_max_position_embeddings", 1.0)
                               .value_or(static_cast<double>(max_position)));
}

}  // namespace

void ConfigReader::merge_rope(Json& merged, std::string& section) {
  for (const char* key : {"rope_scaling", "rope_parameters"}) {
    if (!has(key)) continue;
    const Json& v = member(key);
    if (!v.is_object()) return wrong(key, "an object or null");
    section = key;
    for (const auto& [name, value] : v.items()) {
      const Json* before = merged.find(name);
      if (before == nullptr) {
        merged.append(name, value);
      } else if (*before != value) {
        return fail(Code::kUnimplemented,
                    named(section) + "." + name + " is " + shown(value) + ", but rope_scaling." +
                        name + " is " + shown(*before) +
                        "; releases of the reference disagree on which counts",
                    "state one of rope_scaling and rope_parameters");
      }
    }
  }
}

void ConfigReader::rope(double default_theta, std::span<const RopeType> supported,
                        int64_t max_position, RopeParameters& out) {
  out.theta = number("rope_theta", default_theta, 0.0, 1e30);
  Json merged = Json::object();
  std::string section;
  merge_rope(merged, section);
  if (!ok()) return;
  const Json& scaling = merged;
  for (const auto& [key, v] : scaling.items())
    if (v.is_object())
      return unsupported(section + "." + key, shown(v),
                         "one set of rope parameters for all layers");
  RopeFields fields(fields_of(scaling, named(section)));
  out.theta = fields.number("rope_theta", 0.0, true).value_or(out.theta);
  const auto refuse = [&](const std::string& key, const Json& found, const std::string& what) {
    unsupported(section + "." + key, shown(found), what);
  };
  if (const auto part = fields.number("partial_rotary_factor", 0.0); part && *part != 1.0)
    return refuse("partial_rotary_factor", *part, "1 (all channels rotated)");
  for (const NumericKey& key : numeric_rope_keys()) {
    const Json& found = scaling[key.name];
    if (found.is_null() || asks_for_nothing(key.harmless, shown(found), {})) continue;
    return refuse(std::string(key.name), found,
                  "a checkpoint without it (" + std::string(key.asks) + ")");
  }

  const Json& type = scaling["rope_type"];
  const Json& legacy = scaling["type"];
  if (!type.is_null() && !legacy.is_null() && type != legacy)
    return refuse("type", legacy, shown(type) + " as rope_type says");
  const Json& name = type.is_null() ? legacy : type;
  if (name.is_null()) {
    if (const Json& factor = scaling["factor"]; !factor.is_null())
      fail(Code::kInvalidArgument,
           named(section) + ".factor is " + shown(factor) + " without a rope_type",
           "name the scaling in " + named(section) + ".rope_type");
    return;
  }
  const auto found = std::find_if(supported.begin(), supported.end(), [&](RopeType candidate) {
    return name == rope_type_name(candidate);
  });
  if (found == supported.end())
    return refuse(type.is_null() ? "type" : "rope_type", name, rope_type_list(supported));
  out.type = *found;
  if (out.type == RopeType::kDefault) return;
  out.factor = fields.required("factor", 0.0, true);  // below 1 the reference only warns
  out.mscale_all_dim = fields.number("mscale_all_dim", 0.0).value_or(0.0);
  if (out.type == RopeType::kLlama3) read_llama3(fields, out);
  if (out.type == RopeType::kYarn) read_yarn(fields, max_position, out);
}

}  // namespace chimera
