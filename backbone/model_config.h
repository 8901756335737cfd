// What a checkpoint's config.json means, in one vocabulary for all families.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "backbone/status.h"

namespace chimera {

enum class RopeType : uint8_t { kDefault, kLinear, kDynamic, kYarn, kLlama3 };

/// How the router turns logits into weights; see router/gating.h.
enum class GateKind : uint8_t {
  kSoftmaxTopK,     // softmax over all, then the k largest (optionally normalised)
  kTopKSoftmax,     // the k largest, then softmax over these (gpt_oss)
  kTopKSigmoid,     // the k largest, each weighted by its own sigmoid (llama4)
  kGroupedSigmoid,  // sigmoid + correction bias, group-limited top-k (deepseek_v3)
};

/// The nonlinearity of an expert and whether its projections carry biases.
enum class ExpertKind : uint8_t {
  kSwiGlu,         // down(silu(gate x) * up x), no biases
  kClampedSwiGlu,  // gpt_oss: clamped gate and up, (up + 1) * gate * sigmoid(1.702 gate), biases
};

/// QK normalisation: over the whole projected vector or per head before RoPE, or per head without
/// weights after RoPE and on rotated layers alone (llama4).
enum class QkNorm : uint8_t { kNone, kWholeVector, kPerHead, kPerHeadAfterRope };

/// Where a block's RMS norms stand: before the sub-layer (kPre) or on its output (kPost, the
/// reordered norms of OLMo 2 and FlexOlmo).
enum class NormPlacement : uint8_t { kPre, kPost };

/// Immutable description of a model. Field names follow config.json.
struct ModelConfig {
  std::string model_type;  // "flex_olmo", "olmoe", "mixtral"
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;  // width of one expert
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;
  int64_t vocab_size = 0;
  int64_t max_position_embeddings = 0;
  int64_t num_experts = 0;          // of the checkpoint; modules may append more
  int64_t num_experts_per_tok = 0;  // default top_k
  bool norm_topk_prob = false;
  float rms_norm_eps = 1e-6f;
  double rope_theta = 1e4;
  RopeType rope_type = RopeType::kDefault;
  double rope_factor = 1.0;
  std::optional<int64_t> sliding_window;  // all layers, tokens including the query
  std::optional<float> clip_qkv;
  bool attention_bias = false;
  bool tie_word_embeddings = false;
  GateKind gate_kind = GateKind::kSoftmaxTopK;
  QkNorm qk_norm = QkNorm::kNone;
  NormPlacement norm_placement = NormPlacement::kPre;

  // --- feed-forward ---------------------------------------------------------------------------
  /// [num_layers], 1 = the layer has a router. Dense families (`dense_base`): all 1.
  std::vector<uint8_t> moe_layers;
  /// llama, qwen3: the dense feed-forward of every layer is its one base expert, with a gate row of
  /// zeros, so that modules may append experts beside it (num_experts 1, normalised softmax-topk).
  bool dense_base = false;
  int64_t dense_intermediate_size = 0;   // feed-forward of layers without a router
  int64_t shared_intermediate_size = 0;  // of the shared expert; 0 = none
  bool shared_gated = false;             // its output is scaled by sigmoid(x . shared_expert_gate)
  bool mlp_bias = false;                 // dense feed-forwards carry biases
  ExpertKind expert_kind = ExpertKind::kSwiGlu;
  bool gate_bias = false;         // the router adds a stored bias to its logits
  bool score_correction = false;  // e_score_correction_bias: counts for the choice, not the weight
  bool score_scales_input = false;  // the weight multiplies the expert's input, not its output
  int64_t n_group = 1;              // kGroupedSigmoid: groups of experts, and how many are kept
  int64_t topk_group = 1;
  float routed_scaling_factor = 1.0f;

  /// Before every tensor name: "" or "language_model." of composite checkpoints.
  std::string tensor_prefix;
  std::vector<int32_t> eos_token_ids;  // from config.json and generation_config.json

  bool operator==(const ModelConfig&) const = default;
};

/// Parses and checks config.json. Both the 4.x and the 5.x spelling are read. A key that asks for
/// something not implemented is refused by name (key, value, what is supported).
/// `label` names the file in messages. data_corrupt: no JSON object; invalid_argument: wrong type
/// or value; unimplemented: a family or option that is not supported.
Result<ModelConfig> parse_model_config(std::string_view config_json, std::string_view label);
/// Adds the eos ids of generation_config.json to those of config.json.
Status add_generation_config(std::string_view json, std::string_view label, ModelConfig& config);
/// "flex_olmo, mixtral, olmoe", for messages.
std::string supported_model_types();

/// Tensor names of one family; `{}` parts are filled by the functions below.
struct TensorNames {
  std::string layer_prefix;    // "model.layers.{L}."
  std::string attention_norm;  // after the layer prefix; pre or post
  std::string ffn_norm;
  std::string gate;                                 // "mlp.gate.weight"
  std::string expert_prefix;                        // "mlp.experts.{e}."
  std::string expert_gate, expert_up, expert_down;  // with ".weight"
  std::string fused_gate_up, fused_down;            // "" when the family has no fused layout
  std::string fused_gate;  // the router's gate in the fused layout; often the same as `gate`
};
const TensorNames& tensor_names(const ModelConfig& config);
std::string layer_tensor(const ModelConfig& config, int64_t layer, std::string_view tail);
/// Name of projection `tail` of expert `e` of layer `layer`.
std::string expert_tensor(const ModelConfig& config, int64_t layer, int64_t expert,
                          std::string_view tail);
/// True for tensors of routed experts (fused or not) and for gate rows, i.e. what `split` cuts.
bool is_expert_tensor(const ModelConfig& config, std::string_view name);

}  // namespace chimera
