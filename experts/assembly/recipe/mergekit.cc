#include "experts/assembly/recipe/mergekit.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "backbone/families/model_config.h"
#include "base/io/env.h"
#include "experts/assembly/recipe/mergekit_parameters.h"

namespace chimera {
namespace {

constexpr size_t kMaxConfigBytes = 1u << 20;

class MergekitReader {
 public:
  MergekitReader(Recipe& recipe, Problems& problems) : recipe_(recipe), problems_(problems) {}

  void read(const FieldValue& root) {
    RecipeFields top(root, "", problems_);
    top.choice("merge_method", kMergeMethodNames, method_, FieldReader::kRequired);
    top.word("base_model", "the path of a parent", base_);
    const auto common = read_mergekit_parameters(top).value_or(MergekitParameters{});
    top.float_dtype("dtype", recipe_.dtype);
    top.float_dtype("out_dtype", recipe_.dtype);
    const auto is_base = [](std::string_view text) { return text == "base"; };
    std::string source;
    top.word("tokenizer_source", "base", is_base, source);
    for (const char* key : {"chat_template", "tokenizer", "modules", "gate_mode", "experts"}) {
      if (const auto value = top.find(key)) {
        top.bad(key, *value, "no such key: it is not supported");
      }
    }
    if (top.has("models") == top.has("slices")) {
      top.fail({top.has("models") ? "slices: found beside models (expected one of the two)"
                                  : "models: missing (expected models or slices)"});
    }
    if (top.has("models")) part(top, "models", common);
    slices(top, common);
    top.skip("models");
    top.finish();
    if (problems_.empty()) finish();
  }

 private:
  struct Source {
    std::string model;
    MergekitParameters parameters;
    std::optional<std::pair<int64_t, int64_t>> layers;  // half-open
  };
  struct Slice {
    std::vector<Source> sources;
    MergekitParameters common;
    FieldValue at;
  };

  /// A list of models at `key`.
  void part(RecipeFields& map, std::string_view key, const MergekitParameters& common) {
    const auto list = map.items(key, "a list of models", FieldReader::kRequired);
    if (!list) return;
    Slice slice{{}, common, *list};
    for (size_t i = 0; i < list->size(); ++i) {
      RecipeFields item((*list)[i], fmt::format("{}[{}]", map.path_of(key), i), problems_);
      Source source;
      item.word("model", "the path of a parent", source.model, FieldReader::kRequired);
      source.parameters = read_mergekit_parameters(item).value_or(MergekitParameters{});
      source.layers = layer_range(item);
      item.finish();
      slice.sources.push_back(std::move(source));
    }
    slices_.push_back(std::move(slice));
  }

  std::optional<std::pair<int64_t, int64_t>> layer_range(RecipeFields& map) {
    constexpr std::string_view kKey = "layer_range";
    const std::string expected = fmt::format("two numbers up to {}, [first, end)", kMaxIndex + 1);
    const auto value = map.list(kKey, expected);
    if (!value) return std::nullopt;
    if (value->size() == 2) {
      const auto first = (*value)[0].integer();
      const auto end = (*value)[1].integer();
      if (first && end && *first >= 0 && *first < *end && *end <= kMaxIndex + 1) {
        return std::pair{*first, *end};
      }
    }
    map.bad(kKey, *value, expected);
    return std::nullopt;
  }

  void slices(RecipeFields& top, const MergekitParameters& common) {
    const auto list = top.items("slices", "a list of slices");
    if (!list) return;
    for (size_t i = 0; i < list->size(); ++i) {
      RecipeFields item((*list)[i], fmt::format("slices[{}]", i), problems_);
      const auto own = read_mergekit_parameters(item);
      part(item, "sources", own.value_or(common));
      item.finish();
    }
    check_layers_stay();
  }

  /// Layers that move, are left out or come twice make another architecture.
  void check_layers_stay() {
    int64_t next = 0;
    for (const Slice& slice : slices_) {
      for (const Source& source : slice.sources) {
        const bool stays = source.layers && source.layers->first == next &&
                           source.layers == slice.sources.front().layers;
        if (stays) continue;
        add(slice.at,
            fmt::format("layer_range: not [{}, …] in every source (expected it: layers that move "
                        "are not supported)",
                        next));
        return;
      }
      next = slice.sources.front().layers->second;
    }
  }

  void add(const FieldValue& at, std::string text) { problems_.add(at.place(), {std::move(text)}); }

  /// -1 with a problem when it cannot be found out.
  int64_t count_layers(const FieldValue& at) {
    const std::string path = recipe_.parent_path(0) + "/config.json";
    const Result<std::string> text = read_file(Env::system(), path, kMaxConfigBytes);
    if (text.ok()) {
      const Result<ModelConfig> config = parse_model_config(*text, path);
      if (config.ok()) return config->num_layers;
      add(at, config.status().to_string());
    } else {
      add(at, text.status().to_string());
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
    const FieldValue at = slices_.front().at;
    if (base_.empty() && method_ != MergeMethod::kLinear) {
      add(at, fmt::format("base_model: missing (expected the path of a parent: method {})",
                          kMergeMethodNames.name(method_)));
      return;
    }
    if (!base_.empty()) parent_index(base_);
    for (const Slice& slice : slices_) {
      for (const Source& source : slice.sources) parent_index(source.model);
    }
    if (method_ == MergeMethod::kSlerp && recipe_.parents.size() != 2) {
      add(at, fmt::format("models: found {} (expected two: method slerp)", recipe_.parents.size()));
      return;
    }
    const int64_t layers = count_layers(at);
    if (layers < 0) return;
    for (const Slice& slice : slices_) add_rules(slice, layers);
  }

  void add_rules(const Slice& slice, int64_t layers) {
    auto part = std::make_shared<MergekitSlice>();
    part->method = method_;
    part->common = slice.common;
    part->own.resize(recipe_.parents.size());
    for (const Source& source : slice.sources) {
      part->own[parent_index(source.model)] = source.parameters;
    }
    part->first = slice.sources.front().layers ? slice.sources.front().layers->first : 0;
    part->last = (slice.sources.front().layers ? slice.sources.front().layers->second : layers) - 1;
    part->written = slice.at.written();
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
  Problems& problems_;
  std::string base_;
  MergeMethod method_ = MergeMethod::kLinear;
  std::vector<Slice> slices_;
};

}  // namespace

bool is_mergekit(const FieldValue& root) {
  constexpr std::array kOwn = {"merge_method", "gate_mode", "slices"};
  return std::any_of(kOwn.begin(), kOwn.end(), [&](const char* key) { return root.find(key); });
}

void read_mergekit(const FieldValue& root, Recipe& recipe, Problems& problems) {
  MergekitReader(recipe, problems).read(root);
}

}  // namespace chimera
