// Which supported family an unsupported checkpoint comes nearest to.
#include <algorithm>
#include <cctype>

#include "backbone/families/family.h"
#include "base/suggest.h"

namespace chimera {
namespace {

struct Near {
  std::string_view prefix;  // of the foreign model_type; the longest that fits counts
  std::string_view family;
};

// By attention, router and tensor names, in this order.
constexpr Near kNear[] = {
    {"aquila", "llama"},
    {"arcee", "llama"},
    {"bailing_moe", "deepseek_v3"},
    {"dbrx", "mixtral"},
    {"deepseek", "deepseek_v3"},
    {"deepseek_v32", "deepseek_v3"},
    {"dots1", "deepseek_v3"},
    {"ernie4_5", "llama"},
    {"ernie4_5_moe", "deepseek_v3"},
    {"exaone", "llama"},
    {"gemma", "llama"},
    {"glm", "llama"},
    {"glm4_moe", "deepseek_v3"},
    {"glm_moe", "deepseek_v3"},
    {"granite", "llama"},
    {"granitemoe", "mixtral"},
    {"grok", "mixtral"},
    {"helium", "llama"},
    {"hunyuan", "llama"},
    {"hunyuan_v1_moe", "qwen2_moe"},
    {"internlm", "llama"},
    {"jamba", "mixtral"},
    {"kimi", "deepseek_v3"},
    {"llama", "llama"},
    {"llama4", "llama4"},
    {"longcat", "deepseek_v3"},
    {"mimo", "llama"},
    {"mimo_v2", "deepseek_v3"},
    {"minicpm", "llama"},
    {"minicpm3", "deepseek_v3"},
    {"minimax", "mixtral"},
    {"ministral", "llama"},
    {"mistral", "llama"},
    {"mistral4", "deepseek_v3"},
    {"mixtral", "mixtral"},
    {"mllama", "llama"},
    {"nemotron", "llama"},
    {"olmo", "llama"},
    {"olmo2", "flex_olmo"},
    {"olmo3", "flex_olmo"},
    {"olmoe", "olmoe"},
    {"flex", "flex_olmo"},
    {"gpt_oss", "gpt_oss"},
    {"phi", "llama"},
    {"phimoe", "mixtral"},
    {"qwen2", "llama"},
    {"qwen2_moe", "qwen2_moe"},
    {"qwen3", "qwen3"},
    {"qwen3_moe", "qwen3_moe"},
    {"qwen3_next", "qwen3_moe"},
    {"qwen3_omni", "qwen3_moe"},
    {"qwen3_vl_moe", "qwen3_moe"},
    {"seed_oss", "llama"},
    {"smollm3", "llama"},
    {"solar", "llama"},
    {"stablelm", "llama"},
    {"starcoder2", "llama"},
    {"yi", "llama"},
};

/// Letters and digits in lower case: "Qwen3MoeForCausalLM" and "qwen3_moe" begin alike.
std::string plain(std::string_view text) {
  std::string out;
  for (const char c : text)
    if (std::isalnum(static_cast<unsigned char>(c)) != 0)
      out += static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return out;
}

}  // namespace

std::string_view nearest_family(std::string_view model_type,
                                const std::vector<std::string>& architectures) {
  constexpr size_t kMostName = 64;  // longer ones are no names
  const std::string type = plain(model_type.substr(0, kMostName));
  for (const Near& near : kNear)
    if (type == plain(near.prefix)) return near.family;
  // Then a misspelt name of a supported one: what it means is plain.
  for (const Family& family : families())
    if (edit_distance(type, plain(family.model_type)) <= 1) return family.model_type;
  const auto by_prefix = [](const std::string& name) {
    std::string_view best;
    size_t length = 0;
    for (const Near& near : kNear) {
      const std::string prefix = plain(near.prefix);
      if (prefix.size() < length || !name.starts_with(prefix)) continue;
      best = near.family;
      length = prefix.size();
    }
    return best;
  };
  if (const std::string_view near = by_prefix(type); !near.empty()) return near;
  for (const std::string& architecture : architectures)
    if (const std::string_view near = by_prefix(plain(architecture.substr(0, kMostName)));
        !near.empty())
      return near;
  return {};
}

}  // namespace chimera
