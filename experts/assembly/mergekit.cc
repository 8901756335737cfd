#include "experts/assembly/mergekit.h"

#include <fmt/format.h>

#include <algorithm>
#include <cmath>
#include <filesystem>

#include "backbone/families/model_config.h"
#include "base/io/env.h"
#include "experts/assembly/recipe_fields.h"

namespace chimera {
namespace {

constexpr double kMost = 1e6;
constexpr size_t kMaxConfigBytes = 1u << 20;

/// A number that may depend on the tensor.
struct Setting {
  std::vector<double> gradient;  // one value: everywhere
  std::vector<std::pair<std::string, Setting>> filters;

  double at(const std::string& name, double t, double otherwise) const {
    for (const auto& [filter, setting] : filters) {
      if (filter.empty() || filter == "*" || name.find(filter) != std::string::npos) {
        return setting.at(name, t, otherwise);
      }
    }
    if (gradient.empty()) return otherwise;
    const double place = t * static_cast<double>(gradient.size() - 1);
    const auto low = static_cast<size_t>(place);
    const size_t high = std::min(gradient.size() - 1, low + 1);
    const double part = place - static_cast<double>(low);
    return (1 - part) * gradient[low] + part * gradient[high];
  }
};

Setting read_setting(const YamlNode& node, std::string_view key, YamlProblems& problems) {
  Setting out;
  if (node.kind != YamlNode::Kind::kList) {
    if (const auto value = read_number(node, key, -kMost, kMost, problems)) out.gradient = {*value};
    return out;
  }
  for (const YamlNode& item : node.items) {
    if (item.kind != YamlNode::Kind::kMap) {
      if (const auto value = read_number(item, key, -kMost, kMost, problems))
        out.gradient.push_back(*value);
      continue;
    }
    std::string filter;
    Setting value;
    read_fields(item, key, {"value"},
                {{"filter", [&](const YamlNode& n) { filter = n.text; }},
                 {"value", [&](const YamlNode& n) { value = read_setting(n, key, problems); }}},
                problems);
    out.filters.emplace_back(std::move(filter), std::move(value));
  }
  if (!out.filters.empty() && !out.gradient.empty()) {
    problems.add(node, key, "either numbers or maps with filter and value");
  }
  return out;
}

struct Parameters {
  std::optional<Setting> weight, density, t, lambda;
  std::optional<bool> normalize;
};

/// One slice, or the whole of `models`.
struct Part final : TensorParameters {
  MergeMethod method = MergeMethod::kLinear;
  std::vector<Parameters> own;  // [parents]
  Parameters common;
  int64_t first = 0, last = 0;  // layers
  std::string written;

  double number(std::optional<Setting> Parameters::*member, size_t parent, const std::string& name,
                double at, double otherwise) const {
    const auto& mine = own[parent].*member;
    const auto& shared = common.*member;
    if (mine) return mine->at(name, at, otherwise);
    return shared ? shared->at(name, at, otherwise) : otherwise;
  }

  void apply(const std::string& name, int64_t layer, MergeRule& rule) const override {
    double at = 0;
    if (layer >= 0) at = last > first ? double(layer - first) / double(last - first) : 0;
    if (layer < 0 && name.find("embed") == std::string::npos) at = 1;
    if (method == MergeMethod::kSlerp) {
      const double t = number(&Parameters::t, 0, name, at, 0);
      rule.lambda = {1 - t, t};
      return;
    }
    const bool differences = method != MergeMethod::kLinear;
    double sum = 0;
    for (size_t i = 0; i < own.size(); ++i) {
      const bool base = i == 0 && differences;
      rule.lambda[i] = base ? 0 : number(&Parameters::weight, i, name, at, 0);
      rule.density[i] = std::clamp(number(&Parameters::density, i, name, at, 1), 1e-9, 1.0);
      sum += rule.lambda[i];
    }
    rule.scale = number(&Parameters::lambda, 0, name, at, 1);
    const bool ties = method == MergeMethod::kTies || method == MergeMethod::kDareTies;
    if (ties || !normalized() || std::fabs(sum) < 1e-8) return;
    for (double& value : rule.lambda) value /= sum;
  }

  bool normalized() const {
    const bool by_default = method == MergeMethod::kLinear || method == MergeMethod::kTies;
    return common.normalize.value_or(by_default);
  }

  std::string text() const override { return written; }
};

class MergekitReader {
 public:
  MergekitReader(Recipe& recipe, YamlProblems& problems) : recipe_(recipe), problems_(problems) {}

  void read(const YamlNode& root) {
    const YamlNode* models = nullptr;
    const YamlNode* slices = nullptr;
    Parameters common;
    const auto unsupported = [&](const YamlNode& n, std::string_view key) {
      problems_.add(n, key, "no such key: it is not supported");
    };
    read_fields(
        root, "mergekit recipe", {"merge_method"},
        {{"merge_method", [&](const YamlNode& n) { read_method(n); }},
         {"base_model", [&](const YamlNode& n) { base_ = read_text(n, "base_model", problems_); }},
         {"models", [&](const YamlNode& n) { models = &n; }},
         {"slices", [&](const YamlNode& n) { slices = &n; }},
         {"parameters", [&](const YamlNode& n) { common = read_parameters(n); }},
         {"dtype",
          [&](const YamlNode& n) { recipe_.dtype = read_float_dtype(n, "dtype", problems_); }},
         {"out_dtype",
          [&](const YamlNode& n) { recipe_.dtype = read_float_dtype(n, "out_dtype", problems_); }},
         {"tokenizer_source",
          [&](const YamlNode& n) {
            if (n.text != "base") problems_.add(n, "tokenizer_source", "base");
          }},
         {"chat_template", [&](const YamlNode& n) { unsupported(n, "chat_template"); }},
         {"tokenizer", [&](const YamlNode& n) { unsupported(n, "tokenizer"); }},
         {"modules", [&](const YamlNode& n) { unsupported(n, "modules"); }},
         {"gate_mode", [&](const YamlNode& n) { unsupported(n, "gate_mode"); }},
         {"experts", [&](const YamlNode& n) { unsupported(n, "experts"); }}},
        problems_);
    if ((models == nullptr) == (slices == nullptr)) {
      problems_.add(root, "mergekit recipe: found models and slices or neither (expected one)");
      return;
    }
    if (models != nullptr) read_part(*models, common, "models");
    if (slices != nullptr) read_slices(*slices, common);
    if (problems_.empty()) finish();
  }

 private:
  struct Source {
    std::string model;
    Parameters parameters;
    std::optional<std::pair<int64_t, int64_t>> layers;  // half-open
  };
  struct Slice {
    std::vector<Source> sources;
    Parameters common;
    const YamlNode* at;
  };

  void read_method(const YamlNode& node) {
    const auto method = kMergeMethodNames.find(node.text);
    if (!method) problems_.add(node, "merge_method", kMergeMethodNames.choices());
    if (method) method_ = *method;
  }

  Parameters read_parameters(const YamlNode& node) {
    Parameters out;
    const auto setting = [&](std::optional<Setting> Parameters::*member, std::string_view key) {
      return [this, &out, member, key](const YamlNode& n) {
        out.*member = read_setting(n, key, problems_);
      };
    };
    const auto flag = [&](const YamlNode& n, std::string_view key) {
      const bool yes = n.text == "true" || n.text == "1" || n.text == "1.0";
      if (!yes && n.text != "false" && n.text != "0" && n.text != "0.0")
        problems_.add(n, key, "true or false");
      return yes;
    };
    read_fields(node, "parameters", {},
                {{"weight", setting(&Parameters::weight, "weight")},
                 {"density", setting(&Parameters::density, "density")},
                 {"t", setting(&Parameters::t, "t")},
                 {"lambda", setting(&Parameters::lambda, "lambda")},
                 {"normalize", [&](const YamlNode& n) { out.normalize = flag(n, "normalize"); }},
                 {"rescale",
                  [&](const YamlNode& n) {
                    if (!flag(n, "rescale")) problems_.add(n, "rescale", "true");
                  }},
                 // Saves memory there and does not change the numbers.
                 {"int8_mask", [&](const YamlNode& n) { (void)flag(n, "int8_mask"); }}},
                problems_);
    return out;
  }

  void read_part(const YamlNode& list, const Parameters& common, std::string_view key) {
    Slice slice{{}, common, &list};
    if (list.kind != YamlNode::Kind::kList || list.items.empty()) {
      problems_.add(list, key, "a list of models");
      return;
    }
    for (const YamlNode& item : list.items) {
      Source source;
      read_fields(
          item, key, {"model"},
          {{"model", [&](const YamlNode& n) { source.model = read_text(n, "model", problems_); }},
           {"parameters", [&](const YamlNode& n) { source.parameters = read_parameters(n); }},
           {"layer_range", [&](const YamlNode& n) { source.layers = read_layer_range(n); }}},
          problems_);
      slice.sources.push_back(std::move(source));
    }
    slices_.push_back(std::move(slice));
  }

  std::optional<std::pair<int64_t, int64_t>> read_layer_range(const YamlNode& node) {
    if (node.kind == YamlNode::Kind::kList && node.items.size() == 2) {
      const auto first = read_number(node.items[0], "layer_range", 0, 65535, problems_);
      const auto end = read_number(node.items[1], "layer_range", 0, 65536, problems_);
      if (!first || !end) return std::nullopt;
      if (*first < *end) return std::pair{std::llround(*first), std::llround(*end)};
    }
    problems_.add(node, "layer_range", "two numbers, [first, end)");
    return std::nullopt;
  }

  void read_slices(const YamlNode& list, const Parameters& common) {
    if (list.kind != YamlNode::Kind::kList || list.items.empty()) {
      problems_.add(list, "slices", "a list of slices");
      return;
    }
    for (const YamlNode& item : list.items) {
      Parameters own = common;
      const YamlNode* sources = nullptr;
      read_fields(item, "slices", {"sources"},
                  {{"sources", [&](const YamlNode& n) { sources = &n; }},
                   {"parameters", [&](const YamlNode& n) { own = read_parameters(n); }}},
                  problems_);
      if (sources != nullptr) read_part(*sources, own, "sources");
    }
    check_layers_stay(list);
  }

  /// Layers that move, are left out or come twice make another architecture.
  void check_layers_stay(const YamlNode& list) {
    int64_t next = 0;
    for (const Slice& slice : slices_) {
      for (const Source& source : slice.sources) {
        const bool stays = source.layers && source.layers->first == next &&
                           source.layers == slice.sources.front().layers;
        if (stays) continue;
        problems_.add(
            *slice.at, "layer_range",
            fmt::format("[{}, …] in every source: layers that move are not supported", next));
        return;
      }
      next = slice.sources.front().layers->second;
    }
    (void)list;
  }

  /// -1 with a problem when it cannot be found out.
  int64_t count_layers(const YamlNode& at) {
    const std::string path = recipe_.parent_path(0) + "/config.json";
    const Result<std::string> text = read_file(Env::system(), path, kMaxConfigBytes);
    if (text.ok()) {
      const Result<ModelConfig> config = parse_model_config(*text, path);
      if (config.ok()) return config->num_layers;
      problems_.add(at, config.status().to_string());
    } else {
      problems_.add(at, text.status().to_string());
    }
    return -1;
  }

  size_t parent_index(const std::string& model) {
    for (size_t i = 0; i < recipe_.parents.size(); ++i) {
      if (recipe_.parents[i].path == model) return i;
    }
    recipe_.parents.push_back({model, 0});
    return recipe_.parents.size() - 1;
  }

  void finish() {
    const YamlNode& at = *slices_.front().at;
    if (base_.empty() && method_ != MergeMethod::kLinear) {
      problems_.add(at, "mergekit recipe: found no base_model (expected it)");
      return;
    }
    if (!base_.empty()) parent_index(base_);
    for (const Slice& slice : slices_) {
      for (const Source& source : slice.sources) parent_index(source.model);
    }
    if (method_ == MergeMethod::kSlerp && recipe_.parents.size() != 2) {
      problems_.add(at,
                    fmt::format("models: found {} (expected two: slerp)", recipe_.parents.size()));
      return;
    }
    const int64_t layers = count_layers(at);
    if (layers < 0) return;
    for (const Slice& slice : slices_) add_rules(slice, layers);
  }

  void add_rules(const Slice& slice, int64_t layers) {
    auto part = std::make_shared<Part>();
    part->method = method_;
    part->common = slice.common;
    part->own.resize(recipe_.parents.size());
    for (const Source& source : slice.sources) {
      part->own[parent_index(source.model)] = source.parameters;
    }
    part->first = slice.sources.front().layers ? slice.sources.front().layers->first : 0;
    part->last = (slice.sources.front().layers ? slice.sources.front().layers->second : layers) - 1;
    part->written = slice.at->flow();
    MergeRule rule;
    rule.tensors = "all";
    rule.method = method_;
    rule.lambda.assign(recipe_.parents.size(), 0);
    rule.density.assign(recipe_.parents.size(), 1);
    rule.consensus = part->normalized() ? Consensus::kMean : Consensus::kSum;
    rule.parameters = part;
    if (slices_.size() > 1) {
      rule.layers = IndexRanges{{part->first, part->last}};
      recipe_.rules.push_back(rule);
      rule.layers.reset();
      // Outside the layers: embeddings as the first slice, the rest as the last one.
      if (&slice == &slices_.front()) {
        rule.tensors = "*embed*";
      } else if (&slice != &slices_.back()) {
        return;
      }
    }
    recipe_.rules.push_back(std::move(rule));
  }

  Recipe& recipe_;
  YamlProblems& problems_;
  std::string base_;
  MergeMethod method_ = MergeMethod::kLinear;
  std::vector<Slice> slices_;
};

}  // namespace

bool is_mergekit(const YamlNode& root) {
  return std::any_of(root.entries.begin(), root.entries.end(), [](const YamlEntry& entry) {
    return entry.key.text == "merge_method" || entry.key.text == "gate_mode" ||
           entry.key.text == "slices";
  });
}

void read_mergekit(const YamlNode& root, Recipe& recipe, YamlProblems& problems) {
  MergekitReader(recipe, problems).read(root);
}

}  // namespace chimera
