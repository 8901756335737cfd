// config.json -> ModelConfig, and the tensor names that go with it.
#include "backbone/families/model_config.h"

#include <algorithm>

#include "backbone/families/family.h"

namespace chimera {
namespace {

/// Replaces the `{x}` of a pattern, if it has one, by a number.
std::string fill(std::string_view pattern, int64_t number) {
  const size_t open = pattern.find('{');
  if (open == std::string_view::npos) return std::string(pattern);
  const size_t close = pattern.find('}', open);
  std::string out(pattern.substr(0, open));
  out += std::to_string(number);
  out += pattern.substr(close + 1);
  return out;
}

/// What follows the pattern in `name`, where its `{x}` is a decimal number; nothing if no match.
std::optional<std::string_view> strip_pattern(std::string_view name, std::string_view pattern) {
  const std::string_view head = pattern.substr(0, pattern.find('{'));
  const std::string_view tail = pattern.substr(pattern.find('}') + 1);
  if (!name.starts_with(head)) return std::nullopt;
  name.remove_prefix(head.size());
  const size_t digits = std::min(name.find_first_not_of("0123456789"), name.size());
  if (digits == 0) return std::nullopt;
  name.remove_prefix(digits);
  if (!name.starts_with(tail)) return std::nullopt;
  return name.substr(tail.size());
}

/// Fills in what a family left to the rule: the lists per layer, and widths that follow from
/// others.
void complete(ModelConfig& c) {
  const auto layers = static_cast<size_t>(c.num_layers);
  if (c.masks.empty()) c.masks.resize(layers);
  if (c.rope_layers.empty()) c.rope_layers.assign(layers, 1);
  if (c.moe_layers.empty()) c.moe_layers.assign(layers, 1);
  if (c.v_head_dim == 0) c.v_head_dim = c.head_dim;
  if (c.rope_dim == 0) c.rope_dim = c.head_dim;
}

/// Grouped routing chooses k experts from the kept groups; sigmoids score them by a sum of two.
void check_groups(ConfigReader& reader, const ModelConfig& c) {
  const bool sums = c.gate_kind == GateKind::kGroupedSigmoid;
  if (!sums && c.n_group <= 1) return;
  const std::string groups = "n_group is " + std::to_string(c.n_group);
  const int64_t experts = std::max(c.grouped_experts, c.num_experts);
  if (experts % c.n_group != 0)
    return reader.fail(
        Code::kInvalidArgument,
        groups + ", which does not divide n_routed_experts " + std::to_string(experts));
  const int64_t size = experts / c.n_group;
  if (sums && c.n_group > 1 && size < 2)
    return reader.fail(Code::kInvalidArgument,
                       groups + " for " + std::to_string(experts) +
                           " experts, expected at least two experts per group");
  if (c.topk_group > c.n_group)
    return reader.fail(Code::kInvalidArgument,
                       "topk_group is " + std::to_string(c.topk_group) + ", more than " + groups);
  // Fewer may be left by `split`; see check_consistency.
  if (c.whole_experts == 0 && c.num_experts_per_tok > c.topk_group * size)
    reader.fail(Code::kInvalidArgument,
                "num_experts_per_tok is " + std::to_string(c.num_experts_per_tok) +
                    ", more than the experts of topk_group " + std::to_string(c.topk_group) +
                    " groups of " + std::to_string(size));
}

/// Checks that concern several keys, for all families.
void check_consistency(ConfigReader& reader, const ModelConfig& c) {
  if (c.rope_dim % 2 != 0)
    reader.fail(Code::kInvalidArgument, "head_dim is " + std::to_string(c.rope_dim) +
                                            ", expected an even number (rotary pairs)");
  // Fewer may be left by `split`: all that remain are used then, and modules bring the others back.
  if (c.num_experts_per_tok > std::max(c.num_experts, c.whole_experts))
    reader.fail(Code::kInvalidArgument,
                "num_experts_per_tok is " + std::to_string(c.num_experts_per_tok) +
                    ", more than the number of experts " + std::to_string(c.num_experts));
  check_groups(reader, c);
  for (int32_t id : c.eos_token_ids)
    if (id >= c.vocab_size)
      reader.fail(Code::kInvalidArgument, "eos_token_id is " + std::to_string(id) +
                                              ", expected less than vocab_size " +
                                              std::to_string(c.vocab_size));
}

void refuse_family(ConfigReader& reader, const std::string& type) {
  if (type.empty())
    return reader.fail(Code::kInvalidArgument,
                       "model_type is missing; supported: " + supported_model_types(),
                       "expected the config.json of a checkpoint");
  // Only texts count here; what else is wrong with such a file does not matter any more.
  std::vector<std::string> architectures;
  if (const auto stated = reader.texts("architectures")) architectures = *stated;
  const std::string_view nearest = nearest_family(type, architectures);
  std::string hint = "use a checkpoint of one of these families";
  if (!nearest.empty())
    hint += "; the nearest supported family is " + std::string(nearest) +
            ", whose name in model_type makes it run only if its vendor says that it is one";
  reader.fail(Code::kUnimplemented,
              "model_type is \"" + type + "\"; supported: " + supported_model_types(),
              std::move(hint));
}

}  // namespace

std::string supported_model_types() {
  std::string list;
  for (const Family& family : families()) {
    if (!list.empty()) list += ", ";
    list += family.model_type;
    if (!family.alias.empty()) list += " (" + std::string(family.alias) + ")";
  }
  return list;
}

Result<ModelConfig> parse_model_config(std::string_view config_json, std::string_view label) {
  ConfigReader reader(config_json, label);
  ModelConfig config;
  const std::string type = reader.text("model_type", "");
  if (!reader.status().ok()) return reader.status();
  const Family* family = find_family(type);
  if (family == nullptr) {
    refuse_family(reader, type);
    return reader.status();
  }
  config.model_type = family->model_type;
  family->read(reader, config);
  config.whole_experts = reader.integer("chimera_whole_experts", 0, 0, kMostExperts);
  complete(config);
  if (reader.status().ok()) check_consistency(reader, config);
  if (reader.status().ok()) reader.refuse_unread(config);
  if (!reader.status().ok()) return reader.status();
  return config;
}

Status add_generation_config(std::string_view json, std::string_view label, ModelConfig& config) {
  ConfigReader reader(json, label);
  const std::vector<int32_t> ids = reader.ids("eos_token_id");
  CHIMERA_RETURN_IF_ERROR(reader.status());
  for (int32_t id : ids) {
    if (id >= config.vocab_size)
      return Status(Code::kInvalidArgument,
                    std::string(label) + ": eos_token_id is " + std::to_string(id) +
                        ", expected less than vocab_size " + std::to_string(config.vocab_size));
    std::vector<int32_t>& known = config.eos_token_ids;
    if (std::find(known.begin(), known.end(), id) == known.end()) known.push_back(id);
  }
  return Status();
}

const TensorNames& tensor_names(const ModelConfig& config) {
  static const TensorNames none;
  const Family* family = find_family(config.model_type);
  return family == nullptr ? none : family->names();
}

std::string model_tensor(const ModelConfig& config, std::string_view tail) {
  return config.tensor_prefix + std::string(tail);
}

std::string layer_tensor(const ModelConfig& config, int64_t layer, std::string_view tail) {
  return model_tensor(config, fill(tensor_names(config).layer_prefix, layer)) + std::string(tail);
}

std::string expert_tensor(const ModelConfig& config, int64_t layer, int64_t expert,
                          std::string_view tail) {
  return layer_tensor(config, layer, fill(tensor_names(config).expert_prefix, expert)) +
         std::string(tail);
}

bool is_expert_tensor(const ModelConfig& config, std::string_view name) {
  if (config.dense_base || !name.starts_with(config.tensor_prefix)) return false;
  name.remove_prefix(config.tensor_prefix.size());
  const TensorNames& names = tensor_names(config);
  const std::optional<std::string_view> tail = strip_pattern(name, names.layer_prefix);
  if (!tail || tail->empty()) return false;
  for (const std::string* whole :
       {&names.gate, &names.fused_gate, &names.gate_bias, &names.score_correction,
        &names.fused_gate_up_bias, &names.fused_down_bias})
    if (*tail == *whole) return true;
  for (const std::string* stack : {&names.fused_gate_up, &names.fused_down}) {
    if (stack->empty() || !tail->starts_with(*stack)) continue;
    const std::string_view suffix = tail->substr(stack->size());
    if (suffix.empty() || suffix == names.fused_blocks_suffix ||
        suffix == names.fused_scales_suffix)
      return true;
  }
  return strip_pattern(*tail, names.expert_prefix).has_value();
}

}  // namespace chimera
