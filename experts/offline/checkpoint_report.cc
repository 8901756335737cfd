#include "experts/offline/checkpoint_report.h"

#include <algorithm>
#include <map>
#include <optional>
#include <set>

#include "backbone/checkpoint/check.h"
#include "backbone/checkpoint/checkpoint.h"
#include "backbone/checkpoint/fingerprint.h"
#include "backbone/families/model_config.h"
#include "backbone/language/language.h"
#include "base/json/reader.h"
#include "compute/tensor/convert.h"
#include "compute/tensor/precision.h"
#include "experts/module/base_tensors.h"
#include "experts/module/checkpoint_check.h"

namespace chimera {
namespace {

bool is_scale(const std::string& name) {
  return name.ends_with("_scale_inv") || name.ends_with("_scales");
}

/// Parameters of a tensor; MXFP4 packs two into a byte, scales are none.
uint64_t parameters_of(const TensorView& tensor) {
  if (is_scale(tensor.name)) return 0;
  const auto elements = static_cast<uint64_t>(tensor.elements());
  return tensor.name.ends_with("_blocks") ? 2 * elements : elements;
}

/// Whether the model runs with this tensor; false for vision parts and for layers that predict
/// further tokens.
bool is_used(const ModelConfig& config, const std::string& name) {
  const std::string layers = model_tensor(config, "model.layers.");
  if (!name.starts_with(layers)) {
    return name.starts_with(model_tensor(config, "model.")) ||
           name.starts_with(model_tensor(config, "lm_head."));
  }
  for (int64_t layer = 0; layer < config.num_layers; ++layer) {
    if (name.starts_with(layer_tensor(config, layer, ""))) return true;
  }
  return false;
}

/// Bytes of a backbone tensor once loaded: as stored where the kernels take it so, else F32.
uint64_t loaded_bytes(const TensorView& tensor) {
  if (is_scale(tensor.name)) return 0;
  const bool two_bytes = tensor.dtype == DType::kBF16 || tensor.dtype == DType::kF16;
  const bool narrow = two_bytes && tensor.shape.size() == 2;
  return static_cast<uint64_t>(tensor.elements()) * (narrow ? 2 : 4);
}

uint64_t loaded_bytes(const StoredProjection& p, Precision precision) {
  uint64_t bytes = static_cast<uint64_t>(p.bias ? p.rows * 4 : 0);
  if (p.encoding != Encoding::kPlain) {
    return bytes + p.weight.tensor.bytes.size() / (p.weight.at.dense() ? 1 : 2) +
           static_cast<uint64_t>(p.scale->at.rows * p.scale->at.cols) *
               unit_bytes(p.scale->tensor.dtype);
  }
  if (is_block_type(p.weight.tensor.dtype) && !packed_format(precision))
    return bytes + p.weight.tensor.bytes.size();
  const WeightFormat most = charged_format(p.weight.tensor.dtype, precision);
  return bytes + static_cast<uint64_t>(weight_bytes(most, p.rows, p.cols));
}

struct Sizes {
  uint64_t parameters = 0;
  uint64_t expert_parameters = 0;  // of all routed experts
  uint64_t backbone_memory = 0;
  std::map<std::string, uint64_t> expert_memory;  // by precision
  uint64_t ignored_tensors = 0;
  uint64_t ignored_bytes = 0;
};

void add_backbone(const Checkpoint& checkpoint, const ModelConfig& config,
                  const std::set<std::string>& expert_names, Sizes& sizes) {
  for (const std::string& name : checkpoint.names()) {
    const TensorView& tensor = *checkpoint.find(name);
    if (!is_used(config, name)) {
      ++sizes.ignored_tensors;
      sizes.ignored_bytes += tensor.bytes.size();
      continue;
    }
    sizes.parameters += parameters_of(tensor);
    if (expert_names.count(name) == 0) sizes.backbone_memory += loaded_bytes(tensor);
  }
}

/// Reads every layer's experts; the first problem is what would be refused.
Status add_experts(const Checkpoint& checkpoint, const ModelConfig& config,
                   std::set<std::string>& names, Sizes& sizes) {
  for (const int64_t layer : moe_layers(config)) {
    const Result<BaseLayer> base = read_base_layer(checkpoint, config, layer);
    if (!base.ok()) return base.status();
    for (const StoredExpert& expert : base->experts) {
      for (const StoredProjection& p : expert) {
        sizes.expert_parameters += static_cast<uint64_t>(p.rows * p.cols + (p.bias ? p.rows : 0));
        for (const std::string_view name : kPrecisionNames.all()) {
          sizes.expert_memory[std::string(name)] += loaded_bytes(p, *kPrecisionNames.find(name));
        }
        for (const Part part : {kWeightPart, kScalePart, kBiasPart}) {
          const StoredPart* stored = part_of(p, part);
          if (stored != nullptr) names.insert(stored->tensor.name);
        }
      }
    }
  }
  return {};
}

void describe(const ModelConfig& config, Json& out) {
  const std::vector<int64_t> routed = moe_layers(config);
  out["kind"] = config.dense_base ? "dense" : "mixture of experts";
  out["layers"] = config.num_layers;
  out["hidden_size"] = config.hidden_size;
  if (static_cast<int64_t>(routed.size()) < config.num_layers) {
    out["layers_with_experts"] = routed;
  }
  out["experts_per_layer"] = config.num_experts;
  out["experts_per_token"] = config.num_experts_per_tok;
  out["expert_width"] = config.intermediate_size;
  if (config.shared_intermediate_size > 0) {
    out["shared_expert_width"] = config.shared_intermediate_size;
  }
  if (config.gate_kind == GateKind::kGroupedSigmoid || config.n_group > 1)
    out["expert_groups"] = config.n_group;
  out["vocab_size"] = config.vocab_size;
  out["max_positions"] = config.max_position_embeddings;
}

/// Active: every token uses all of the backbone and experts_per_token of the routed experts.
void describe(const Sizes& sizes, const ModelConfig& config, Json& out) {
  const auto experts = static_cast<uint64_t>(config.num_experts);
  const auto used = static_cast<uint64_t>(std::min(config.num_experts_per_tok, config.num_experts));
  const uint64_t idle = experts == 0 ? 0 : sizes.expert_parameters / experts * (experts - used);
  out["parameters"] = sizes.parameters;
  out["active_parameters"] = sizes.parameters - idle;
  for (const char* precision : {"f32", "bf16"}) {
    const auto memory = sizes.expert_memory.find(precision);
    out["memory"][precision] =
        sizes.backbone_memory + (memory == sizes.expert_memory.end() ? 0 : memory->second);
  }
  if (sizes.ignored_tensors > 0) {
    out["ignored"]["tensors"] = sizes.ignored_tensors;
    out["ignored"]["bytes"] = sizes.ignored_bytes;
  }
}

/// What the daemon would say to this checkpoint.
Status check_model(const Checkpoint& checkpoint, const ModelConfig& config) {
  CHIMERA_RETURN_IF_ERROR(check_checkpoint_tensors(checkpoint, config));
  CHIMERA_RETURN_IF_ERROR(check_checkpoint_numbers(checkpoint, config));
  return load_tokenizer(checkpoint).status();
}

/// Describes as much as can be known; the status is the reason why the daemon refuses it.
Status describe_model(const Checkpoint& checkpoint, Json& out) {
  const Result<ModelConfig> config = read_model_config(checkpoint);
  if (!config.ok()) return config.status();
  describe(*config, out);
  CHIMERA_RETURN_IF_ERROR(check_model(checkpoint, *config));
  Sizes sizes;
  std::set<std::string> names;
  CHIMERA_RETURN_IF_ERROR(add_experts(checkpoint, *config, names, sizes));
  add_backbone(checkpoint, *config, names, sizes);
  describe(sizes, *config, out);
  const Result<std::string> fingerprint = backbone_fingerprint(checkpoint, "");
  if (!fingerprint.ok()) return fingerprint.status();
  out["fingerprint"] = *fingerprint;
  return {};
}

}  // namespace

std::string dtype_list(const Checkpoint& checkpoint) {
  std::set<std::string_view> dtypes;
  for (const auto& file : checkpoint.files()) {
    for (const TensorView& tensor : file->tensors()) dtypes.insert(dtype_name(tensor.dtype));
  }
  std::string text;
  for (const std::string_view dtype : dtypes) {
    text += (text.empty() ? "" : ", ") + std::string(dtype);
  }
  return text;
}

Result<Json> inspect_checkpoint(const std::string& dir, Status* verdict) {
  const Result<Checkpoint> checkpoint = Checkpoint::open(dir, Residency::kMapped);
  if (!checkpoint.ok()) return checkpoint.status();
  Json out;
  out["type"] = "checkpoint";
  const Result<Json> config =
      parse_json(checkpoint->config_json(), {.duplicates = DuplicateKeys::kLastCounts});
  out["model_type"] = config.ok() ? config->value("model_type", "unknown") : "unknown";
  Json model = Json::object();
  Status runs = describe_model(*checkpoint, model);
  out["runs"] = runs.ok();
  if (!runs.ok()) out["refused"] = runs.to_string();
  out.update(model);
  uint64_t tensors = 0;
  uint64_t bytes = 0;
  for (const auto& file : checkpoint->files()) {
    for (const TensorView& tensor : file->tensors()) bytes += tensor.bytes.size();
    tensors += file->tensors().size();
  }
  if (!checkpoint->quantization().empty()) out["quantization"] = checkpoint->quantization();
  if (checkpoint->packed()) {
    out["packed"] = checkpoint->packed()->precision.name();
    out.erase("memory");  // runs in this precision alone, in place
  }
  out["tokenizer"] = checkpoint->has_tokenizer();
  out["files"] = checkpoint->files().size();
  out["tensors"] = tensors;
  out["dtype"] = dtype_list(*checkpoint);
  out["bytes"] = bytes;
  *verdict = std::move(runs);
  return out;
}

}  // namespace chimera
