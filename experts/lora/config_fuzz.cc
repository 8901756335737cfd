// adapter_config.json as bytes of a stranger: refused, or a configuration that answers for any
// name.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "experts/lora/config.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  const auto config = chimera::LoraConfig::parse(text, "adapter_config.json");
  if (!config.ok()) return 0;
  for (const std::string_view name : {"model.layers.0.self_attn.q_proj", "", "experts.3.w1"}) {
    (void)config->takes(name, 0, -1);
    if (config->rank_of(name) < 1) __builtin_trap();
    (void)config->scale_of(name);
  }
  return 0;
}
