// ConfigReader: tolerant of spellings, strict about meaning.
#include <fmt/format.h>

#include <cmath>
#include <limits>
#include <utility>

#include "backbone/families/family.h"
#include "base/json/field_value.h"
#include "base/json/reader.h"
#include "base/json/writer.h"

namespace chimera {
namespace {

/// What Python wrote: integers may be written 64.0, and booleans as older files have them, 0 is
/// false.
class ConfigFormat final : public JsonFieldFormat {
 public:
  std::string found(const void* node) const override { return ConfigReader::shown(json(node)); }
  std::optional<int64_t> integer(const void* node) const override {
    const Json& v = json(node);
    if (v.is_integer() || !v.is_number()) return v.integer();
    const double d = *v.number();
    if (d != std::floor(d) || std::fabs(d) > 9e15) return std::nullopt;
    return static_cast<int64_t>(d);
  }
  std::optional<bool> boolean(const void* node) const override {
    if (const std::optional<bool> flag = json(node).boolean()) return flag;
    const std::optional<int64_t> number = integer(node);
    return number ? std::optional<bool>(*number != 0) : std::nullopt;
  }
};

class ConfigWording final : public Wording {
 public:
  Problem mismatch(const std::string& path, const std::string& found,
                   std::string_view expected) const override {
    return {fmt::format("{} is {}, expected {}", path, found, expected)};
  }
  Problem missing(const std::string& path, std::string_view key,
                  std::string_view expected) const override {
    if (!expected.empty()) {
      return {fmt::format("{} is missing, expected {}", path_of(path, key), expected)};
    }
    return {.text = path_of(path, key) + " is missing", .hint = "every config.json states it"};
  }
  /// Unknown keys are judged by refuse_unread().
  Problem unknown(const std::string& path, std::string_view key,
                  std::span<const std::string_view>) const override {
    return {path_of(path, key) + " is unknown"};
  }
  std::string map() const override { return "an object"; }
  std::string number(const RealRange& range, bool) const override {
    return fmt::format("a number above {}, at most {}", ConfigReader::shown(range.min),
                       ConfigReader::shown(range.max));
  }
};

const ConfigFormat kFormat;
const ConfigWording kWording;

}  // namespace

std::string ConfigReader::shown(const Json& value) {
  std::string text = write_json(value, {.ascii = true});
  if (text.size() > 80) text.replace(77, std::string::npos, "...");
  return text;
}

ConfigReader::ConfigReader(std::string_view text, std::string_view label)
    : problems_(std::string(label)) {
  // A key that stands twice counts as the reference's reader has it.
  Result<Json> parsed = parse_json(text, {.duplicates = DuplicateKeys::kLastCounts});
  const bool good = parsed.ok() && parsed->is_object();
  if (!parsed.ok())
    fail(Code::kDataCorrupt, parsed.status().message(), "expected the config.json of a checkpoint");
  else if (!good)
    fail(Code::kDataCorrupt, "holds " + std::string(parsed->kind_name()) + ", expected an object");
  enter(good ? std::move(*parsed) : Json::object(), "");
}

void ConfigReader::enter(Json object, std::string path) {
  root_ = std::move(object);
  fields_.emplace(fields_of(root_, std::move(path)));
}

FieldReader ConfigReader::fields_of(const Json& object, std::string path) {
  return {FieldValue(&object, kFormat), std::move(path), kWording, problems_};
}

void ConfigReader::fail(Code code, std::string message, std::string hint) {
  if (ok()) problems_.add({}, {std::move(message), std::move(hint), code});
}

void ConfigReader::wrong(std::string_view key, std::string_view expected) {
  fields_->bad(key, FieldValue(&member(key), kFormat), expected);
}

void ConfigReader::unsupported(std::string_view key, std::string_view found,
                               std::string_view supported) {
  problems_.add({}, {.text = fmt::format("{} is {}; supported: {}", named(key), found, supported),
                     .hint = "use a checkpoint without this option",
                     .code = Code::kUnimplemented});
}

void ConfigReader::descend(std::string_view key) {
  if (!has(key)) return fields_->fail(kWording.missing(fields_->path(), key, kWording.map()));
  Json inner = member(key);
  if (!inner.is_object()) return wrong(key, kWording.map());
  enter(std::move(inner), named(key));
}

bool ConfigReader::is_null(std::string_view key) {
  const std::optional<FieldValue> found = fields_->find(key);
  return found && found->is_null();
}

bool ConfigReader::has(std::string_view key) {
  const std::optional<FieldValue> found = fields_->find(key);
  return found && !found->is_null();
}

std::string ConfigReader::text(std::string_view key, std::string_view fallback) {
  if (!has(key)) return std::string(fallback);
  const Json& v = member(key);
  if (!v.is_string()) wrong(key, "a string");
  return v.is_string() ? *v.string() : std::string(fallback);
}

int64_t ConfigReader::integer(std::string_view key, int64_t fallback, int64_t least, int64_t most) {
  int64_t value = fallback;
  if (has(key)) fields_->integer({key, least, most}, value);
  return value;
}

int64_t ConfigReader::required(std::string_view key, int64_t least, int64_t most) {
  if (has(key)) return integer(key, 0, least, most);
  fields_->fail(kWording.missing(fields_->path(), key, {}));
  return 0;
}

double ConfigReader::number(std::string_view key, double fallback, double above, double most) {
  double value = fallback;
  if (has(key)) fields_->number({key, above, most, /*min_open=*/true}, value);
  return value;
}

bool ConfigReader::boolean(std::string_view key, bool fallback) {
  bool value = fallback;
  if (has(key)) fields_->boolean(key, value);
  return value;
}

std::vector<int32_t> ConfigReader::ids(std::string_view key) {
  std::vector<int32_t> out;
  if (!has(key)) return out;
  const Json& v = member(key);
  const Json list = v.is_array() ? v : Json::array({v});
  for (const Json& item : list) {
    const std::optional<int64_t> id = kFormat.integer(&item);
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
        v[i].is_boolean() ? std::optional<int64_t>(*v[i].boolean()) : kFormat.integer(&v[i]);
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
    if (!first.empty() && stated != count && ok()) {
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
    if (value.empty() || fields_->asked(key.name)) continue;
    if (!key.with.empty() && asks_for_nothing(Harmless::kOff, value_of(key.with), config)) continue;
    if (asks_for_nothing(key.harmless, value, config)) continue;
    unsupported(key.name, fmt::format("{} ({})", value, key.asks), "a checkpoint without it");
  }
}

std::vector<std::string> ConfigReader::keys() const {
  std::vector<std::string> keys;
  for (const auto& [key, value] : root_.items()) keys.emplace_back(key);
  return keys;
}

void ConfigReader::refuse_unknown() {
  for (const auto& [key, value] : root_.items()) {
    if (value.is_null() || fields_->asked(key)) continue;
    unsupported(key, shown(value), "a checkpoint without it");
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
