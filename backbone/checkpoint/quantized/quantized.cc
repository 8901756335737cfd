#include "backbone/checkpoint/quantized/quantized.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <set>

#include "backbone/checkpoint/quantized/scheme.h"
#include "base/json/reader.h"
#include "base/json/writer.h"
#include "base/quote.h"

namespace chimera {
namespace {

constexpr const char* kSection = "quantization_config";
constexpr const char* kMlxSection = "quantization";
constexpr const char* kText = "text_config";
constexpr const char* kMethod = "quant_method";

using Files = std::vector<std::shared_ptr<const TensorFile>>;

bool speaks(const Json& level, const char* key) {
  return level[key].is_object() && !level[key].empty();
}

/// Where config.json speaks of quantisation; nothing when it does not. MLX writes its part under
/// two names.
std::optional<QuantSection> find_section(const Json& config, std::string_view config_json,
                                         std::string_view label) {
  const auto at = [&](std::vector<std::string> path) {
    return QuantSection{config_json, label, std::move(path)};
  };
  if (speaks(config, kMlxSection)) return at({kMlxSection});
  if (speaks(config[kText], kMlxSection)) return at({kText, kMlxSection});
  if (speaks(config, kSection)) return at({kSection});
  if (speaks(config[kText], kSection)) return at({kText, kSection});
  return std::nullopt;
}

std::string scheme_list() {
  std::string list;
  for (const SchemeEntry& entry : quant_schemes()) list += std::string(entry.method) + ", ";
  return list + "MLX's affine kinds, and mxfp4 for gpt_oss";
}

Result<std::unique_ptr<Scheme>> read_scheme(const QuantSection& section,
                                            const std::string& method) {
  if (section.path.back() == kMlxSection) return read_mlx(section);
  for (const SchemeEntry& entry : quant_schemes()) {
    if (entry.method == method) return entry.read(section);
  }
  return Status(
      Code::kUnimplemented,
      fmt::format("{}: {}.{} is {}; supported: {}", section.label, fmt::join(section.path, "."),
                  kMethod, method.empty() ? "missing" : quote(method), scheme_list()),
      "Take the checkpoint without quantisation, or one in these formats; GGUF files run "
      "as well.");
}

/// All matrices and what is none, in the order of the files.
class Sorter {
 public:
  Sorter(const Scheme& scheme, const std::string& dir) : scheme_(scheme), dir_(dir) {}

  Result<Files> run(const Files& files) {
    for (const auto& file : files) {
      for (const TensorView& t : file->tensors()) sort(t);
    }
    std::set<std::string> done;
    std::set<std::string> names;
    Files out;
    for (const auto& file : files) {
      std::vector<TensorView> tensors;
      for (const TensorView& t : file->tensors()) {
        const auto [stem, tail] = cut(t.name);
        if (tail.empty()) {
          tensors.push_back(t);
        } else if (done.insert(stem).second) {
          CHIMERA_RETURN_IF_ERROR(convert(stem, tensors));
        }
      }
      for (const TensorView& t : tensors) {
        if (!names.insert(t.name).second)
          return Status(Code::kDataCorrupt,
                        file->path() + ": holds two tensors for " + quote(t.name));
      }
      out.push_back(std::make_shared<TensorFile>(file->path(), std::move(tensors),
                                                 file->file_bytes(), file->mapped(),
                                                 file->identity(), file->owner()));
    }
    return out;
  }

 private:
  /// "a.b.qweight" as "a.b" and ".qweight"; no tail when the scheme knows none.
  std::pair<std::string, std::string_view> cut(const std::string& name) const {
    std::string_view best;
    for (const std::string_view tail : scheme_.tails()) {
      if (name.size() > tail.size() && name.ends_with(tail) && tail.size() > best.size())
        best = tail;
    }
    return {name.substr(0, name.size() - best.size()), best};
  }

  void sort(const TensorView& t) {
    const auto [stem, tail] = cut(t.name);
    if (tail.empty()) return;
    const auto unused = scheme_.unused_tails();
    if (std::find(unused.begin(), unused.end(), tail) != unused.end()) {
      linears_.try_emplace(stem, stem, dir_);
      return;
    }
    linears_.try_emplace(stem, stem, dir_).first->second.add(tail, t);
    parts_[stem].push_back(t);
  }

  Status convert(const std::string& stem, std::vector<TensorView>& out) const {
    const StoredLinear& linear = linears_.at(stem);
    const auto parts = parts_.find(stem);
    if (parts == parts_.end()) return {};  // scales of activations alone
    if (linear.has(scheme_.tails().front())) {
      Result<std::vector<TensorView>> made = scheme_.native(linear);
      if (!made.ok()) return made.status();
      for (TensorView& t : *made) out.push_back(std::move(t));
      return {};
    }
    // Plain numbers under a name that the scheme uses as well.
    if (parts->second.size() == 1 && linear.has(".weight")) {
      out.push_back(parts->second.front());
      return {};
    }
    return linear.corrupt(parts->second.front(),
                          "stands without " + quote(stem + std::string(scheme_.tails().front())));
  }

  const Scheme& scheme_;
  const std::string& dir_;
  std::map<std::string, StoredLinear> linears_;
  std::map<std::string, std::vector<TensorView>> parts_;
};

/// The configuration of what the checkpoint has become.
std::string native_config(Json config, const Scheme& scheme) {
  for (Json* level : {&config, config.find(kText)}) {
    if (level == nullptr || !level->is_object()) continue;
    level->erase(kSection);
    level->erase(kMlxSection);
  }
  if (const auto block = scheme.fp8_block()) {
    Json* text = config.find(kText);
    Json& target = text != nullptr && text->is_object() ? *text : config;
    target[kSection] = Json{{kMethod, "fp8"},
                            {"fmt", "e4m3"},
                            {"activation_scheme", "dynamic"},
                            {"weight_block_size", Json::array({block->rows, block->cols})}};
  }
  return write_json(config, {.indent = 2}) + "\n";
}

}  // namespace

Result<std::optional<QuantizedCheckpoint>> read_quantized(std::string_view config_json,
                                                          std::string_view label,
                                                          const std::string& dir,
                                                          const Files& files) {
  const std::optional<QuantizedCheckpoint> nothing;
  const Result<Json> config = parse_json(config_json, {.duplicates = DuplicateKeys::kLastCounts});
  if (!config.ok() || !config->is_object()) return nothing;
  const std::optional<QuantSection> section = find_section(*config, config_json, label);
  if (!section) return nothing;
  const Json* level = &*config;
  for (const std::string& key : section->path) level = level->find(key);
  const std::string* stated = (*level)[kMethod].string();
  const std::string method = stated == nullptr ? std::string() : *stated;
  if (method == "mxfp4") return nothing;
  const Result<std::unique_ptr<Scheme>> scheme = read_scheme(*section, method);
  if (!scheme.ok()) return scheme.status();
  Result<Files> native = Sorter(**scheme, dir).run(files);
  if (!native.ok()) return native.status();
  return std::optional(QuantizedCheckpoint{native_config(*config, **scheme), std::move(*native),
                                           (*scheme)->description()});
}

}  // namespace chimera
