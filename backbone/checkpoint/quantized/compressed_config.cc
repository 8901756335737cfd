#include "backbone/checkpoint/quantized/compressed_config.h"

#include <fmt/format.h>

#include <algorithm>
#include <iterator>

namespace chimera {
namespace {

constexpr size_t kMostGroups = 64;

struct FormName {
  std::string_view format;
  CompressedForm form;
};
constexpr FormName kForms[] = {{"float-quantized", CompressedForm::kFp8},
                               {"int-quantized", CompressedForm::kInt8},
                               {"pack-quantized", CompressedForm::kPacked},
                               {"nvfp4-pack-quantized", CompressedForm::kNvfp4}};
constexpr std::string_view kFormats =
    "float-quantized, naive-quantized, int-quantized, pack-quantized and nvfp4-pack-quantized";

void read_strategy(ConfigReader& r, CompressedForm form, CompressedSettings& s) {
  s.strategy = r.text("strategy", form == CompressedForm::kNvfp4 ? "tensor_group" : "tensor");
  const int64_t group = r.has("group_size") ? r.integer("group_size", 0, -1, kWholeSide) : 0;
  const auto block = r.integers("block_structure", 1, kWholeSide);
  if (s.strategy == "group") {
    if (form == CompressedForm::kFp8) return r.refuse("strategy", "tensor, channel and block");
    if (group < 1 && r.ok()) return r.refuse("group_size", "a positive number");
    s.group = group;
  } else if (s.strategy == "block") {
    if (form != CompressedForm::kFp8) return r.refuse("strategy", "tensor, channel and group");
    if (!block || block->size() != 2) return r.refuse("block_structure", "two numbers");
    s.block = {(*block)[0], (*block)[1]};
  } else if (s.strategy == "tensor_group") {
    if (form != CompressedForm::kNvfp4 || (group != 16 && group != 0))
      r.refuse("strategy", "group");
  } else if (s.strategy != "tensor" && s.strategy != "channel") {
    r.refuse("strategy", "tensor, channel, group and block");
  }
}

CompressedSettings read_weights(ConfigReader& r, CompressedForm form) {
  CompressedSettings s;
  s.bits = r.required("num_bits", 1, 32);
  const bool floats = form == CompressedForm::kFp8 || form == CompressedForm::kNvfp4;
  r.refuse_unless("type", {floats ? "\"float\"" : "\"int\""}, floats ? "float" : "int");
  const bool fits = form == CompressedForm::kNvfp4    ? s.bits == 4
                    : form == CompressedForm::kPacked ? s.bits == 4 || s.bits == 8
                                                      : s.bits == 8;
  if (r.ok() && !fits)
    r.refuse("num_bits", form == CompressedForm::kPacked ? "4 and 8"
                         : floats                        ? "8, or 4 as NVFP4"
                                                         : "8");
  s.symmetric = r.boolean("symmetric", true);
  if (floats && !s.symmetric) r.refuse("symmetric", "true");
  r.refuse_unless("dynamic", {}, "false: weights are quantised once");
  read_strategy(r, form, s);
  r.refuse_unless("actorder", {"\"group\"", "\"weight\"", "\"static\"", "\"dynamic\""},
                  "group and weight");
  for (const char* key : {"observer", "observer_kwargs", "scale_dtype", "zp_dtype"}) r.ignore(key);
  r.refuse_unknown();
  return s;
}

/// naive-quantized is one of two formats, by the type of its weights.
CompressedForm form_of(const QuantSection& section, const std::string& format,
                       const std::vector<std::string>& groups) {
  for (const FormName& each : kForms) {
    if (each.format == format) return each.form;
  }
  const auto weights = section.reader({"config_groups", groups.front(), "weights"});
  return weights->text("type", "int") == "float" ? CompressedForm::kFp8 : CompressedForm::kInt8;
}

bool is_known(const std::string& format) {
  return format == "naive-quantized" ||
         std::any_of(std::begin(kForms), std::end(kForms),
                     [&](const FormName& each) { return each.format == format; });
}

/// The top level, but for the groups.
std::string read_top(ConfigReader& r) {
  const std::string format = r.text("format", "");
  if (!is_known(format)) r.refuse("format", kFormats);
  r.refuse_unless("quantization_status", {"\"compressed\"", "\"frozen\""}, "compressed");
  // A rotation of activations, and weights of which some are left out.
  r.refuse_unless("transform_config", {"{}"}, "a checkpoint without transforms");
  if (r.is_object("sparsity_config") && !r.is_empty("sparsity_config"))
    r.refuse("sparsity_config", "a checkpoint without sparsity");
  for (const char* key : {"quant_method", "config_groups", "ignore", "kv_cache_scheme",
                          "global_compression_ratio", "version", "sparsity_config"})
    r.ignore(key);
  r.refuse_unknown();
  return format;
}

}  // namespace

std::string CompressedSettings::text() const {
  std::string out = fmt::format("{} bits, ", bits);
  if (strategy == "tensor") return out + "one scale per matrix";
  if (strategy == "block") return out + fmt::format("blocks of {} x {}", block.rows, block.cols);
  if (strategy == "tensor_group") return out + "groups of 16";
  out += group == 0 ? "one group per output" : fmt::format("groups of {}", group);
  return symmetric ? out : out + ", zero points";
}

BlockShape CompressedSettings::fp8_block() const {
  if (strategy == "block") return block;
  return {strategy == "channel" ? 1 : kWholeSide, kWholeSide};
}

Result<CompressedConfig> read_compressed_config(const QuantSection& section) {
  const auto top = section.reader();
  const std::string format = read_top(*top);
  if (!top->ok()) return top->status();
  const auto list = section.reader({"config_groups"});
  if (!list->ok()) return list->status();
  const std::vector<std::string> names = list->keys();
  if (names.empty() || names.size() > kMostGroups) {
    top->refuse("config_groups", fmt::format("1 to {} groups", kMostGroups));
    return top->status();
  }
  const CompressedForm form = form_of(section, format, names);
  std::vector<CompressedSettings> groups;
  for (const std::string& name : names) {
    const auto group = section.reader({"config_groups", name});
    // Activations stay wide, whatever these say.
    for (const char* key : {"targets", "weights", "input_activations", "output_activations"})
      group->ignore(key);
    const std::string own = group->text("format", format);
    if (own != format) group->refuse("format", format + ", as all of the checkpoint");
    group->refuse_unknown();
    if (!group->ok()) return group->status();
    const auto weights = section.reader({"config_groups", name, "weights"});
    groups.push_back(read_weights(*weights, form));
    if (!weights->ok()) return weights->status();
    if (form == CompressedForm::kFp8 && groups.back().fp8_block() != groups.front().fp8_block()) {
      weights->refuse("strategy", "the same for all groups of FP8 weights");
      return weights->status();
    }
  }
  return CompressedConfig{form, std::move(groups)};
}

}  // namespace chimera
