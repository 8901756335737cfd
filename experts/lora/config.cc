#include "experts/lora/config.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "base/fields/problems.h"
#include "base/json/json.h"
#include "base/json/reader.h"
#include "base/json/writer.h"

namespace chimera {
namespace {

// Far above any adapter's; keeps products of sizes small.
constexpr int64_t kMostRank = 1 << 16;
constexpr int64_t kMostLayers = 4096;

// What matters to training, or tells where the adapter came from.
constexpr std::array<std::string_view, 14> kOfTraining = {
    "auto_mapping",   "base_model_name_or_path",
    "corda_config",   "ensure_weight_tying",
    "eva_config",     "inference_mode",
    "loftq_config",   "lora_dropout",
    "lora_ga_config", "megatron_core",
    "peft_version",   "qalora_group_size",
    "revision",       "task_type"};

std::string shown(const Json& value) {
  std::string text = write_json(value, {.ascii = true});
  if (text.size() > 80) text.replace(77, std::string::npos, "...");
  return text;
}

/// Absent, or what Python's classes have where an option is off.
bool is_off(const Json& value) {
  switch (value.kind()) {
    case Json::Kind::kNull:
      return true;
    case Json::Kind::kBoolean:
      return !*value.boolean();
    case Json::Kind::kString:
      return value.string()->empty();
    case Json::Kind::kArray:
    case Json::Kind::kObject:
      return value.empty();
    case Json::Kind::kInteger:
    case Json::Kind::kReal:
      return false;
  }
  return false;
}

}  // namespace

/// Every problem is noted and reading goes on.
class LoraConfigReader {
 public:
  LoraConfigReader(const Json& root, Problems& problems) : root_(root), problems_(problems) {}

  LoraConfig read() {
    LoraConfig c;
    method();
    c.rank = integer("r", take("r"), 1, kMostRank).value_or(1);
    if (const Json& alpha = take("lora_alpha"); !alpha.is_null())
      c.alpha_ = number("lora_alpha", alpha).value_or(1.0);
    c.root_scale_ = flag("use_rslora");
    c.dora = flag("use_dora");
    for (auto& [pattern, value] : patterns("rank_pattern")) {
      if (const auto rank = integer("rank_pattern", *value, 1, kMostRank))
        c.ranks_.emplace_back(std::move(pattern), *rank);
    }
    for (auto& [pattern, value] : patterns("alpha_pattern")) {
      if (const auto alpha = number("alpha_pattern", *value))
        c.alphas_.emplace_back(std::move(pattern), *alpha);
    }
    targets(c);
    layers(c);
    if (c.dora && !c.target_parameters.empty())
      refuse("use_dora", root_["use_dora"], "false beside target_parameters");
    unsupported();
    return c;
  }

 private:
  const Json& take(std::string_view key) {
    known_.push_back(key);
    return root_[key];
  }
  void bad(std::string_view key, const Json& value, std::string_view expected) {
    problems_.add({}, {fmt::format("{}: found {} (expected {})", key, shown(value), expected)});
  }
  void refuse(std::string_view key, const Json& value, std::string_view why) {
    problems_.add({}, {.text = fmt::format("{}: found {} (supported: {})", key, shown(value), why),
                       .hint = "Merge the adapter into its model with PEFT, or train it without "
                               "this option.",
                       .code = Code::kUnimplemented});
  }

  std::optional<int64_t> integer(std::string_view key, const Json& value, int64_t least,
                                 int64_t most) {
    const std::optional<int64_t> found = value.integer();
    if (found && *found >= least && *found <= most) return found;
    bad(key, value, fmt::format("an integer, {} to {}", least, most));
    return std::nullopt;
  }
  std::optional<double> number(std::string_view key, const Json& value) {
    const std::optional<double> found = value.number();
    if (found && std::isfinite(*found)) return found;
    bad(key, value, "a number");
    return std::nullopt;
  }
  bool flag(std::string_view key) {
    const Json& value = take(key);
    if (value.is_null()) return false;
    if (!value.is_boolean()) bad(key, value, "true or false");
    return value.boolean().value_or(false);
  }
  std::vector<std::string> texts(std::string_view key, const Json& value) {
    std::vector<std::string> out;
    for (const Json& item : value) {
      if (item.is_string()) {
        out.push_back(*item.string());
      } else {
        bad(key, item, "a name");
      }
    }
    return out;
  }

  std::vector<std::pair<NamePattern, const Json*>> patterns(std::string_view key) {
    std::vector<std::pair<NamePattern, const Json*>> out;
    const Json& value = take(key);
    if (!value.is_null() && !value.is_object()) bad(key, value, "an object");
    for (const auto& [name, item] : value.items()) {
      // As PEFT's get_pattern_key: the end of a name, beginning where a part of it begins.
      auto pattern = NamePattern::compile(fmt::format("(?:.*\\.)?(?:{})", name));
      if (pattern.ok()) {
        out.emplace_back(std::move(*pattern), &item);
      } else {
        problems_.add({}, {fmt::format("{}: {}", key, pattern.status().message())});
      }
    }
    return out;
  }

  NameSelection selection(std::string_view key, const Json& value) {
    NameSelection out;
    if (value.is_string()) {
      auto pattern = NamePattern::compile(*value.string());
      if (pattern.ok()) {
        out.patterns.push_back(std::move(*pattern));
      } else {
        problems_.add({}, {fmt::format("{}: {}", key, pattern.status().message())});
      }
    } else if (value.is_array()) {
      out.names = texts(key, value);
    } else if (!value.is_null()) {
      bad(key, value, "a list of names, or a regular expression");
    }
    return out;
  }

  void targets(LoraConfig& c) {
    if (const std::string* base = root_["base_model_name_or_path"].string()) c.base_model = *base;
    const Json& modules = take("target_modules");
    c.all_linear = modules.is_string() && *modules.string() == "all-linear";
    if (!c.all_linear) c.targets = selection("target_modules", modules);
    c.excluded = selection("exclude_modules", take("exclude_modules"));
    const Json& parameters = take("target_parameters");
    if (!parameters.is_null() && !parameters.is_array()) {
      bad("target_parameters", parameters, "a list of names");
    }
    c.target_parameters = texts("target_parameters", parameters);
    // "0.18.1", "0.19.0.dev0"
    const std::string* version = root_["peft_version"].string();
    if (version == nullptr) return;
    const char* const end = version->data() + version->size();
    int major = 0;
    int minor = 0;
    const auto read = std::from_chars(version->data(), end, major);
    if (read.ec != std::errc() || read.ptr == end || *read.ptr != '.') return;
    if (std::from_chars(read.ptr + 1, end, minor).ec != std::errc()) return;
    c.swaps_stacks = major == 0 && minor < 19;
  }

  void layers(LoraConfig& c) {
    const Json& value = take("layers_to_transform");
    take("layers_pattern");  // the layers of a backbone are found by its own names
    if (value.is_null()) return;
    c.layers.emplace();
    if (value.is_integer()) {
      if (const auto layer = integer("layers_to_transform", value, 0, kMostLayers))
        c.layers->push_back(*layer);
      return;
    }
    if (!value.is_array()) return bad("layers_to_transform", value, "a layer, or a list of them");
    for (const Json& item : value) {
      if (const auto layer = integer("layers_to_transform", item, 0, kMostLayers))
        c.layers->push_back(*layer);
    }
    if (c.layers->empty()) c.layers.reset();  // as PEFT takes it
  }

  void method() {
    const Json& type = take("peft_type");
    if (type.is_null() || (type.is_string() && *type.string() == "LORA")) return;
    refuse("peft_type", type, "LORA");
  }

  void unsupported() {
    const Json& bias = take("bias");
    if (!is_off(bias) && !(bias.is_string() && *bias.string() == "none"))
      refuse("bias", bias, "none");
    // PiSSA, OLoRA, CorDA and LoftQ change the weights that an adapter is added to.
    const Json& start = take("init_lora_weights");
    constexpr std::array<std::string_view, 3> kHarmless{"gaussian", "eva", "orthogonal"};
    const bool harmless = start.is_null() || start.is_boolean() ||
                          (start.is_string() && std::find(kHarmless.begin(), kHarmless.end(),
                                                          *start.string()) != kHarmless.end());
    if (!harmless) {
      refuse("init_lora_weights", start,
             "true, false, gaussian, eva, orthogonal: the others change the model's own weights");
    }
    take("runtime_config");  // where training keeps its tensors
    for (const auto& [key, value] : root_.items()) {
      const bool read = std::find(known_.begin(), known_.end(), key) != known_.end() ||
                        std::find(kOfTraining.begin(), kOfTraining.end(), key) != kOfTraining.end();
      if (!read && !is_off(value)) refuse(key, value, "an adapter without this option");
    }
  }

  const Json& root_;
  Problems& problems_;
  std::vector<std::string_view> known_;
};

Result<LoraConfig> LoraConfig::parse(std::string_view text, const std::string& label) {
  const Result<Json> root = parse_json(text, {.duplicates = DuplicateKeys::kLastCounts});
  if (!root.ok()) return root.status().with_context(label);
  if (!root->is_object()) {
    return Status(Code::kDataCorrupt, fmt::format("{}: found {} {} (expected an object)", label,
                                                  root->kind_name(), shown(*root)));
  }
  Problems problems(label);
  LoraConfig config = LoraConfigReader(*root, problems).read();
  if (!problems.empty()) return problems.status();
  return config;
}

int64_t LoraConfig::rank_of(std::string_view name) const {
  for (const auto& [pattern, value] : ranks_) {
    if (pattern.matches(name)) return value;
  }
  return rank;
}

double LoraConfig::scale_of(std::string_view name) const {
  double alpha = alpha_;
  for (const auto& [pattern, value] : alphas_) {
    if (!pattern.matches(name)) continue;
    alpha = value;
    break;
  }
  const auto r = static_cast<double>(rank_of(name));
  return alpha / (root_scale_ ? std::sqrt(r) : r);
}

bool LoraConfig::takes_parameter(std::string_view name) const {
  const NameSelection named{{}, target_parameters};
  return named.takes(name);
}

bool LoraConfig::takes(std::string_view name, int64_t layer, int64_t expert) const {
  if (excluded.takes(name)) return false;
  if (all_linear) return true;
  if (!targets.takes(name)) return false;
  // PEFT restricts lists to layers, and no expressions. Until 0.18 the last number of a name was
  // taken for its layer, which in "layers.1.experts.0.down_proj" is that of the expert.
  if (!layers || !targets.patterns.empty()) return true;
  const auto listed = [&](int64_t number) {
    return std::find(layers->begin(), layers->end(), number) != layers->end();
  };
  return listed(layer) || (expert >= 0 && listed(expert));
}

}  // namespace chimera
