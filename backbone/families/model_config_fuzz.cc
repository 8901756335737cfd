// Fuzz target: config.json. Whatever is accepted must be complete and lead to sizes, frequencies
// and names that the forward pass can use.
#include <cmath>
#include <cstdint>
#include <cstdlib>
#include <string>
#include <string_view>

#include "backbone/families/model_config.h"
#include "backbone/forward/rope.h"

namespace {

void require(bool holds) {
  if (!holds) std::abort();
}

void check(const chimera::ModelConfig& c) {
  const auto layers = static_cast<size_t>(c.num_layers);
  require(c.masks.size() == layers && c.rope_layers.size() == layers);
  require(c.moe_layers.size() == layers);
  require(c.key_width() > 0 && c.value_width() >= 0 && c.num_heads % c.num_kv_heads == 0);
  require(c.rope_dim > 0 && c.rope_dim % 2 == 0 && c.rope_dim <= c.head_dim && c.v_head_dim > 0);
  for (const chimera::AttentionMask& mask : c.masks)
    for (const int64_t position : {int64_t{0}, int64_t{7}, int64_t{1} << 40}) {
      const int64_t first = mask.first_visible(position);
      require(first >= 0 && first <= position);
    }
  for (const uint8_t moe : c.moe_layers)
    require(moe != 0 ? c.intermediate_size > 0 : c.dense_intermediate_size > 0);
  const chimera::Rope rope(c);
  require(rope.dim() == c.rope_dim && std::isfinite(chimera::attention_scale(c)));
  const chimera::TensorNames& names = chimera::tensor_names(c);
  const std::string gate = chimera::expert_tensor(c, 0, 0, names.expert_gate);
  require(chimera::is_expert_tensor(c, gate) != c.dense_base);
  require(!chimera::is_expert_tensor(c, chimera::model_tensor(c, "lm_head.weight")));
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  auto config = chimera::parse_model_config(text, "fuzz");
  if (!config.ok()) return 0;
  check(*config);
  (void)chimera::add_generation_config(text, "fuzz", *config);
  return 0;
}
