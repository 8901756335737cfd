// The table of families and what all of them read alike.
#include "backbone/family.h"

#include <array>

namespace chimera {
namespace {

// Bounds far above any released model; they keep products of sizes within 64 bits.
constexpr int64_t kMostWidth = int64_t{1} << 20;
constexpr int64_t kMostVocab = int64_t{1} << 24;
constexpr int64_t kMostLayers = 4096;
constexpr int64_t kMostHeads = 4096;
constexpr int64_t kMostPositions = int64_t{1} << 31;
constexpr int64_t kMostExperts = 65536;

constexpr std::array kRopeTypes = {RopeType::kDefault, RopeType::kLinear};

}  // namespace

std::span<const Family> families() {
  // Built on first use: the order in which the families' own constants are initialised is open.
  static const std::array<Family, 3> table = {kFlexOlmo, kMixtral, kOlmoe};
  return table;
}

const Family* find_family(std::string_view model_type) {
  for (const Family& family : families())
    if (family.model_type == model_type) return &family;
  return nullptr;
}

void read_common(ConfigReader& r, const CommonDefaults& d, ModelConfig& c) {
  c.hidden_size = r.required("hidden_size", 1, kMostWidth);
  c.intermediate_size = r.required("intermediate_size", 1, kMostWidth);
  c.num_layers = r.required("num_hidden_layers", 1, kMostLayers);
  c.num_heads = r.required("num_attention_heads", 1, kMostHeads);
  c.num_kv_heads = r.integer("num_key_value_heads",
                             d.num_kv_heads > 0 ? d.num_kv_heads : c.num_heads, 1, kMostHeads);
  c.vocab_size = r.required("vocab_size", 1, kMostVocab);
  c.max_position_embeddings =
      r.integer("max_position_embeddings", d.max_position_embeddings, 1, kMostPositions);
  c.num_experts_per_tok = r.integer("num_experts_per_tok", d.num_experts_per_tok, 1, kMostExperts);
  c.rms_norm_eps = static_cast<float>(r.number("rms_norm_eps", d.rms_norm_eps, 0.0, 1.0));
  c.tie_word_embeddings = r.boolean("tie_word_embeddings", false);
  c.eos_token_ids = r.ids("eos_token_id");
  r.rope(d.rope_theta, kRopeTypes, c);

  r.refuse_unless("hidden_act", {"\"silu\"", "\"swish\""}, "silu");
  r.refuse_unless("quantization_config", {}, "unquantised F32, F16 and BF16 checkpoints");
  r.refuse_unless("partial_rotary_factor", {"1", "1.0"}, "1 (all channels rotated)");
  r.refuse_unless("mlp_bias", {"0"}, "false");
  r.all_equal("layer_types", c.sliding_window ? "sliding_attention" : "full_attention");

  if (c.num_kv_heads > 0 && c.num_heads % c.num_kv_heads != 0)
    r.fail(Code::kInvalidArgument,
           "num_attention_heads is " + std::to_string(c.num_heads) +
               ", which num_key_value_heads " + std::to_string(c.num_kv_heads) + " does not divide",
           "each key/value head serves a whole group of query heads");
}

}  // namespace chimera
