// ConfigReader: tolerant of spellings, strict about meaning.
#include <cmath>
#include <limits>
#include <utility>

#include "backbone/families/config_json.h"
#include "text/tokenizer/model/json.h"

namespace chimera {

using json = nlohmann::json;

namespace {

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

}  // namespace

std::string shown(const json& value) {
  std::string text = value.dump(-1, ' ', true, json::error_handler_t::replace);
  if (text.size() > 80) text = text.substr(0, 77) + "...";
  return text;
}

ConfigReader::ConfigReader(std::string_view text, std::string_view label)
    : label_(label), json_(std::make_unique<Json>()) {
  json_->root = json::object();
  Result<json> parsed = tokenizer::parse_bounded_json(text);
  if (!parsed.ok())
    fail(Code::kDataCorrupt, parsed.status().message(), "expected the config.json of a checkpoint");
  else if (!parsed->is_object())
    fail(Code::kDataCorrupt, "holds " + std::string(parsed->type_name()) + ", expected an object");
  else
    json_->root = std::move(*parsed);
}

ConfigReader::~ConfigReader() = default;

void ConfigReader::fail(Code code, std::string message, std::string hint) {
  if (status_.ok()) status_ = Status(code, label_ + ": " + std::move(message), std::move(hint));
}

void ConfigReader::wrong(std::string_view key, std::string_view expected) {
  fail(Code::kInvalidArgument, named(key) + " is " + shown(json_->root[std::string(key)]) +
                                   ", expected " + std::string(expected));
}

void ConfigReader::unsupported(std::string_view key, std::string_view found,
                               std::string_view supported) {
  fail(Code::kUnimplemented,
       named(key) + " is " + std::string(found) + "; supported: " + std::string(supported),
       "use a checkpoint without this option");
}

void ConfigReader::descend(std::string_view key) {
  if (!has(key))
    return fail(Code::kInvalidArgument, named(key) + " is missing, expected an object");
  json inner = json_->root[std::string(key)];
  if (!inner.is_object()) return wrong(key, "an object");
  prefix_ = named(key) + ".";
  json_->root = std::move(inner);
}

bool ConfigReader::is_null(std::string_view key) const {
  const auto it = json_->root.find(std::string(key));
  return it != json_->root.end() && it->is_null();
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
  fail(Code::kInvalidArgument, named(key) + " is missing", "every config.json states it");
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
  if (const std::optional<int64_t> i = as_integer(v)) return *i != 0;
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

std::optional<std::vector<int64_t>> ConfigReader::integers(std::string_view key, int64_t least,
                                                           int64_t most) {
  if (!has(key)) return std::nullopt;
  const json& v = json_->root[std::string(key)];
  std::vector<int64_t> out;
  bool good = v.is_array();
  for (size_t i = 0; good && i < v.size(); ++i) {
    const std::optional<int64_t> item =
        v[i].is_boolean() ? std::optional<int64_t>(v[i].get<bool>()) : as_integer(v[i]);
    good = item && *item >= least && *item <= most;
    if (good) out.push_back(*item);
  }
  if (good) return out;
  wrong(key, "a list of integers from " + std::to_string(least) + " to " + std::to_string(most));
  return std::nullopt;
}

std::optional<std::vector<std::string>> ConfigReader::texts(std::string_view key) {
  if (!has(key)) return std::nullopt;
  const json& v = json_->root[std::string(key)];
  std::vector<std::string> out;
  bool good = v.is_array();
  for (size_t i = 0; good && i < v.size(); ++i) {
    good = v[i].is_string();
    if (good) out.push_back(v[i].get<std::string>());
  }
  if (good) return out;
  wrong(key, "a list of texts");
  return std::nullopt;
}

int64_t ConfigReader::expert_count(int64_t fallback) {
  std::string_view first;
  int64_t count = fallback;
  for (const std::string_view key : {"num_local_experts", "num_experts", "n_routed_experts"}) {
    if (!has(key)) continue;
    const int64_t stated = integer(key, fallback, 1, kMostExperts);
    if (!first.empty() && stated != count) {
      wrong(key, std::to_string(count) + " as " + named(first) + " says");
      return count;
    }
    first = key;
    count = stated;
  }
  return count;
}

std::string ConfigReader::quantization(std::string_view supported) {
  constexpr const char* kKey = "quantization_config";
  if (!has(kKey)) return {};
  const json& v = json_->root[kKey];
  const std::string what =
      "checkpoints without it and those of quant_method " + std::string(supported);
  const json method = v.is_object() ? v.value("quant_method", json()) : json();
  if (!method.is_string() || method.get_ref<const std::string&>() != supported) {
    unsupported(kKey, shown(v), what);
    return {};
  }
  const auto require = [&](const char* key, const json& value) {
    const json found = v.value(key, json());
    if (!found.is_null() && found != value)
      unsupported(std::string(kKey) + "." + key, shown(found), shown(value));
  };
  if (supported == "fp8") {
    require("weight_block_size", json::array({128, 128}));
    require("fmt", "e4m3");
    require("activation_scheme", "dynamic");
  }
  return std::string(supported);
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

void ConfigReader::refuse(std::string_view key, std::string_view supported) {
  const auto it = json_->root.find(std::string(key));
  unsupported(key, it == json_->root.end() ? "missing" : shown(*it), supported);
}

void ConfigReader::all_equal(std::string_view key, std::string_view value) {
  if (!has(key)) return;
  const json& v = json_->root[std::string(key)];
  const json list = v.is_array() ? v : json::array({v});
  for (const json& item : list)
    if (!item.is_string() || item.get_ref<const std::string&>() != value)
      return unsupported(key, shown(v), std::string(value) + " for every layer");
}

}  // namespace chimera
