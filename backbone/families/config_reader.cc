// ConfigReader: tolerant of spellings, strict about meaning.
#include <cmath>
#include <limits>
#include <utility>

#include "backbone/families/family.h"
#include "base/json/reader.h"
#include "base/json/writer.h"

namespace chimera {
namespace {

/// Integers may be written 64 or 64.0.
std::optional<int64_t> as_integer(const Json& v) {
  if (v.is_integer() || !v.is_number()) return v.integer();
  const double d = *v.number();
  if (d != std::floor(d) || std::fabs(d) > 9e15) return std::nullopt;
  return static_cast<int64_t>(d);
}

}  // namespace

std::string ConfigReader::shown(const Json& value) {
  std::string text = write_json(value, {.ascii = true});
  if (text.size() > 80) text.replace(77, std::string::npos, "...");
  return text;
}

ConfigReader::ConfigReader(std::string_view text, std::string_view label)
    : label_(label), root_(Json::object()) {
  // A key that stands twice counts as the reference's reader has it.
  Result<Json> parsed = parse_json(text, {.duplicates = DuplicateKeys::kLastCounts});
  if (!parsed.ok())
    fail(Code::kDataCorrupt, parsed.status().message(), "expected the config.json of a checkpoint");
  else if (!parsed->is_object())
    fail(Code::kDataCorrupt, "holds " + std::string(parsed->kind_name()) + ", expected an object");
  else
    root_ = std::move(*parsed);
}

void ConfigReader::fail(Code code, std::string message, std::string hint) {
  if (status_.ok()) status_ = Status(code, label_ + ": " + std::move(message), std::move(hint));
}

void ConfigReader::wrong(std::string_view key, std::string_view expected) {
  fail(Code::kInvalidArgument,
       named(key) + " is " + shown(member(key)) + ", expected " + std::string(expected));
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
  Json inner = member(key);
  if (!inner.is_object()) return wrong(key, "an object");
  prefix_ = named(key) + ".";
  root_ = std::move(inner);
  asked_.clear();
}

bool ConfigReader::is_null(std::string_view key) const {
  asked_.emplace(key);
  const Json* found = root_.find(key);
  return found != nullptr && found->is_null();
}

bool ConfigReader::has(std::string_view key) const {
  asked_.emplace(key);
  const Json* found = root_.find(key);
  return found != nullptr && !found->is_null();
}

std::string ConfigReader::text(std::string_view key, std::string_view fallback) {
  if (!has(key)) return std::string(fallback);
  const Json& v = member(key);
  if (!v.is_string()) wrong(key, "a string");
  return v.is_string() ? *v.string() : std::string(fallback);
}

int64_t ConfigReader::integer(std::string_view key, int64_t fallback, int64_t least, int64_t most) {
  if (!has(key)) return fallback;
  const std::optional<int64_t> v = as_integer(member(key));
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
  const Json& v = member(key);
  if (const std::optional<double> d = v.number(); d && *d > above && *d <= most) return *d;
  wrong(key, "a number above " + shown(above) + ", at most " + shown(most));
  return fallback;
}

bool ConfigReader::boolean(std::string_view key, bool fallback) {
  if (!has(key)) return fallback;
  const Json& v = member(key);
  if (const std::optional<bool> flag = v.boolean()) return *flag;
  if (const std::optional<int64_t> i = as_integer(v)) return *i != 0;
  wrong(key, "true or false");
  return fallback;
}

std::vector<int32_t> ConfigReader::ids(std::string_view key) {
  std::vector<int32_t> out;
  if (!has(key)) return out;
  const Json& v = member(key);
  const Json list = v.is_array() ? v : Json::array({v});
  for (const Json& item : list) {
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
  const Json& v = member(key);
  std::vector<int64_t> out;
  bool good = v.is_array();
  for (size_t i = 0; good && i < v.size(); ++i) {
    const std::optional<int64_t> item =
        v[i].is_boolean() ? std::optional<int64_t>(*v[i].boolean()) : as_integer(v[i]);
    good = item && *item >= least && *item <= most;
    if (good) out.push_back(*item);
  }
  if (good) return out;
  wrong(key, "a list of integers from " + std::to_string(least) + " to " + std::to_string(most));
  return std::nullopt;
}

std::optional<std::vector<std::string>> ConfigReader::texts(std::string_view key) {
  if (!has(key)) return std::nullopt;
  const Json& v = member(key);
  std::vector<std::string> out;
  bool good = v.is_array();
  for (size_t i = 0; good && i < v.size(); ++i) {
    good = v[i].is_string();
    if (good) out.push_back(*v[i].string());
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
  const Json& v = member(kKey);
  const std::string what =
      "checkpoints without it and those of quant_method " + std::string(supported);
  if (v.is_object() && v.empty()) return {};
  if (v["quant_method"] != supported) {
    unsupported(kKey, shown(v), what);
    return {};
  }
  const auto require = [&](const char* key, const Json& value) {
    const Json& found = v[key];
    if (!found.is_null() && found != value)
      unsupported("quantization_config." + std::string(key), shown(found), shown(value));
  };
  if (supported == "fp8") {
    require("weight_block_size", Json::array({128, 128}));
    require("fmt", "e4m3");
    require("activation_scheme", "dynamic");
  }
  return std::string(supported);
}

void ConfigReader::refuse_unless(std::string_view key,
                                 std::initializer_list<std::string_view> allowed,
                                 std::string_view supported) {
  if (!has(key)) return;
  const Json& v = member(key);
  if (v == false) return;
  const std::string found = shown(v);
  for (std::string_view a : allowed)
    if (found == a) return;
  unsupported(key, found, supported);
}

void ConfigReader::refuse(std::string_view key, std::string_view supported) {
  const Json* found = root_.find(key);
  unsupported(key, found == nullptr ? "missing" : shown(*found), supported);
}

void ConfigReader::refuse_unread(const ModelConfig& config) {
  const auto value_of = [&](std::string_view key) {
    const Json& found = member(key);
    return found.is_null() ? std::string() : shown(found);
  };
  for (const NumericKey& key : numeric_keys()) {
    const std::string value = value_of(key.name);
    if (value.empty() || asked_.contains(key.name)) continue;
    if (!key.with.empty() && asks_for_nothing(Harmless::kOff, value_of(key.with), config)) continue;
    if (asks_for_nothing(key.harmless, value, config)) continue;
    return fail(Code::kUnimplemented,
                named(key.name) + " is " + value + " (" + std::string(key.asks) +
                    "); supported: a checkpoint without it",
                "use a checkpoint without this option");
  }
}

void ConfigReader::all_equal(std::string_view key, std::string_view value) {
  if (!has(key)) return;
  const Json& v = member(key);
  const Json list = v.is_array() ? v : Json::array({v});
  for (const Json& item : list)
    if (item != value) return unsupported(key, shown(v), std::string(value) + " for every layer");
}

}  // namespace chimera
