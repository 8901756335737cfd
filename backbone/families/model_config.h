// What a checkpoint's config.json means, in one vocabulary for all families.
//
// Thread safety: values and free functions, from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace chimera {

enum class RopeType : uint8_t { kDefault, kLinear, kDynamic, kYarn, kLlama3 };

/// How the router turns logits into weights; see router/gating.h.
enum class GateKind : uint8_t {
  kSoftmaxTopK,     // softmax over all, then the k largest (of the best groups, if there are any)
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

/// Which earlier positions a row sees; never later ones.
enum class MaskKind : uint8_t { kFull, kSliding, kChunked };
struct AttentionMask {
  MaskKind kind = MaskKind::kFull;
  int64_t width = 0;  // kSliding: keys including the row's own; kChunked: positions per chunk

  /// First visible position of the row at `position`; the last is the row itself.
  int64_t first_visible(int64_t position) const {
    switch (kind) {
      case MaskKind::kSliding:
        return position < width ? 0 : position + 1 - width;
      case MaskKind::kChunked:  // boundaries are absolute positions
        return position / width * width;
      case MaskKind::kFull:
        break;
    }
    return 0;
  }
  bool operator==(const AttentionMask&) const = default;
};

/// Rotary position embedding; model-families section 0.3. Fields that `type` has no use for keep
/// their defaults, so that equal meaning compares equal.
struct RopeParameters {
  RopeType type = RopeType::kDefault;
  double theta = 1e4;
  double factor = 1.0;
  int64_t original_max_position = 0;                     // llama3, yarn
  double low_freq_factor = 1.0, high_freq_factor = 4.0;  // llama3
  double beta_fast = 32.0, beta_slow = 1.0;              // yarn
  bool truncate = true;                                  // yarn: whole correction bounds
  std::optional<double> attention_factor;                // yarn
  double mscale = 0.0, mscale_all_dim = 0.0;  // yarn; the latter scales MLA's softmax too

  bool operator==(const RopeParameters&) const = default;
};

/// Widths of multi-head latent attention (DeepSeek-V2, arXiv 2405.04434, section 2.1).
struct MlaConfig {
  int64_t q_lora_rank = 0;  // 0: queries are projected directly
  int64_t kv_lora_rank = 0;
  int64_t qk_nope_head_dim = 0, qk_rope_head_dim = 0;

  bool operator==(const MlaConfig&) const = default;
};

/// Scales the queries of layers without rotation by ln(1 + floor((pos + 1) / floor_scale)) *
/// attn_scale + 1 (llama4).
struct TemperatureTuning {
  double floor_scale = 8192.0, attn_scale = 0.1;

  bool operator==(const TemperatureTuning&) const = default;
};

/// Immutable description of a model. Field names follow config.json. Lists of one entry per layer
/// are complete after parse_model_config.
struct ModelConfig {
  std::string model_type;  // one of supported_model_types()
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;  // width of one expert
  int64_t num_layers = 0;
  int64_t num_heads = 0;
  int64_t num_kv_heads = 0;
  int64_t head_dim = 0;    // of queries and keys; MLA: qk_nope_head_dim + qk_rope_head_dim
  int64_t v_head_dim = 0;  // of values
  int64_t rope_dim = 0;    // rotated channels of a head: all but MLA's qk_nope_head_dim
  int64_t vocab_size = 0;
  int64_t max_position_embeddings = 0;
  int64_t num_experts = 0;          // of the checkpoint; modules may append more
  int64_t num_experts_per_tok = 0;  // default top_k
  /// Of the checkpoint from which `split` took this backbone, when it left fewer experts than
  /// num_experts_per_tok (key chimera_whole_experts); else 0.
  int64_t whole_experts = 0;
  bool norm_topk_prob = false;
  float rms_norm_eps = 1e-6f;
  RopeParameters rope;
  bool rope_interleaved = false;     // pairs (2i, 2i+1) instead of (i, i + rope_dim / 2)
  std::vector<uint8_t> rope_layers;  // [num_layers], 1 = queries and keys are rotated
  std::vector<AttentionMask> masks;  // [num_layers]
  std::optional<TemperatureTuning> temperature_tuning;
  std::optional<MlaConfig> mla;  // instead of q, k and v projections; one key head
  std::optional<float> clip_qkv;
  bool attention_bias = false;         // on q, k, v; MLA: on q_a and kv_a
  bool attention_output_bias = false;  // on o
  bool attention_sinks = false;        // per head one more logit in the softmax, without a value
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
  int64_t n_group = 1;              // groups of experts, and how many are kept (router/gating.h)
  int64_t topk_group = 1;
  /// Over how many experts the groups were laid, in a backbone that `split` took some from (key
  /// chimera_grouped_experts); 0: num_experts.
  int64_t grouped_experts = 0;
  float routed_scaling_factor = 1.0f;

  /// quantization_config.quant_method: "", "fp8" (with scales per block) or "mxfp4" (experts).
  std::string quant_method;
  /// Before every tensor name: "" or "language_model." of composite checkpoints.
  std::string tensor_prefix;
  std::vector<int32_t> eos_token_ids;  // from config.json and generation_config.json

  /// Numbers that the KV cache holds per position and layer. MLA keeps the normalised latent and
  /// the rotated key part instead of keys, and nothing beside them (values are read from it).
  int64_t key_width() const {
    return mla ? mla->kv_lora_rank + mla->qk_rope_head_dim : num_kv_heads * head_dim;
  }
  int64_t value_width() const { return mla ? 0 : num_kv_heads * v_head_dim; }

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

/// How a family stores the experts of a layer as one stack; by family, never by shape, because the
/// shapes of two layouts can coincide.
enum class FusedLayout : uint8_t {
  kOutIn,             // gate_up [E, 2I, H]: gate rows, then up rows; down [E, H, I]
  kInOut,             // gate_up [E, H, 2I]: gate columns, then up columns; down [E, I, H] (llama4)
  kInOutInterleaved,  // gate_up [E, H, 2I]: gate, up, gate, up...; down [E, I, H] (gpt_oss)
};

/// Tensor names of one family; `{}` parts are filled by the functions below. Names but
/// `layer_prefix` come after the layer prefix; "" = the family has no such tensor.
struct TensorNames {
  std::string layer_prefix;    // "model.layers.{L}."
  std::string attention_norm;  // pre or post
  std::string ffn_norm;
  std::string gate;                                 // "mlp.gate.weight"
  std::string gate_bias;                            // "mlp.router.bias"
  std::string score_correction;                     // "mlp.gate.e_score_correction_bias"
  std::string expert_prefix;                        // "mlp.experts.{e}."; "mlp." of dense families
  std::string expert_gate, expert_up, expert_down;  // with ".weight"
  std::string fused_gate_up, fused_down;
  std::string fused_gate_up_bias, fused_down_bias;
  /// MXFP4: the stacks as fused_gate_up + these suffixes (model-families section 9).
  std::string fused_blocks_suffix, fused_scales_suffix;
  std::string fused_gate;  // the router's gate in the fused layout; often the same as `gate`
  FusedLayout fused_layout = FusedLayout::kOutIn;
  std::string dense_prefix;   // feed-forward of layers without a router: "mlp."; its projections
                              // are gate_proj, up_proj and down_proj
  std::string shared_prefix;  // "mlp.shared_experts.", projections as in a dense feed-forward
  std::string shared_gate;    // "mlp.shared_expert_gate.weight", [1, hidden]
};
const TensorNames& tensor_names(const ModelConfig& config);
/// Name of a tensor outside the layers: the checkpoint's prefix and `tail`.
std::string model_tensor(const ModelConfig& config, std::string_view tail);
std::string layer_tensor(const ModelConfig& config, int64_t layer, std::string_view tail);
/// Name of projection `tail` of expert `e` of layer `layer`. Dense families have expert 0 alone.
std::string expert_tensor(const ModelConfig& config, int64_t layer, int64_t expert,
                          std::string_view tail);
/// True for tensors of routed experts (fused or not) and for what the router stores per expert
/// (gate rows, biases, score corrections), i.e. what `split` cuts. False for all tensors of dense
/// families.
bool is_expert_tensor(const ModelConfig& config, std::string_view name);

}  // namespace chimera
