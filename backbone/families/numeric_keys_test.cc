// Keys that change the numbers never pass in silence; harmless ones never stop a checkpoint.
#include "backbone/families/numeric_keys.h"

#include <gtest/gtest.h>

#include <set>
#include <string>

#include "backbone/families/family.h"

namespace chimera {
namespace {

constexpr std::string_view kChosen = "num_experts_per_tok";

/// A small configuration that every family reads, with further members ", \"key\": value".
std::string config_of(std::string_view family, const std::string& members = "") {
  const std::string fields =
      R"("hidden_size": 64, "intermediate_size": 48, "moe_intermediate_size": 32,
         "num_hidden_layers": 4, "num_attention_heads": 16, "num_key_value_heads": 8,
         "vocab_size": 320, "n_group": 1, "topk_group": 1)";
  if (family == "llama4")
    return R"({"model_type": "llama4", "text_config": {"model_type": "llama4_text", )" + fields +
           members + "}}";
  // The one key without a default.
  const bool states =
      family != "deepseek_v2" || members.find(std::string(kChosen) + "\"") != std::string::npos;
  const std::string chosen = states ? "" : R"(, "num_experts_per_tok": 2)";
  // The last two keys of `fields` are deepseek's own; 1 asks for nothing elsewhere.
  return R"({"model_type": ")" + std::string(family) + "\", " + fields + chosen + members + "}";
}

std::string member(std::string_view key, const std::string& value) {
  return ", \"" + std::string(key) + "\": " + value;
}

class EveryFamily : public testing::TestWithParam<std::string> {};

TEST_P(EveryFamily, ReadsOrRefusesEveryNumericKeyByName) {
  const auto plain = parse_model_config(config_of(GetParam()), "config.json");
  ASSERT_TRUE(plain.ok()) << plain.status().to_string();
  // A value of a kind that no key takes: whoever reads the key complains, and so must who does not.
  const std::string odd = R"({"odd": 7.25})";
  for (const NumericKey& key : numeric_keys()) {
    // What the family does not depend on, such as the weights of a dense one's chosen experts.
    if (asks_for_nothing(key.harmless, odd, *plain)) continue;
    if (key.name == "n_group" || key.name == "topk_group") continue;           // stated above
    if (GetParam() == "gpt_oss" && key.name == "experts_per_token") continue;  // documented
    // The qwen families read it where use_sliding_window is true (LayerTypesWin).
    if (GetParam().starts_with("qwen") && key.name == "sliding_window") continue;
    const auto c = parse_model_config(config_of(GetParam(), member(key.name, odd)), "c.json");
    ASSERT_FALSE(c.ok()) << key.name << " passes in silence";
    EXPECT_NE(c.status().message().find(key.name), std::string::npos) << c.status().to_string();
  }
}

TEST_P(EveryFamily, TakesNullForEveryNumericKey) {
  for (const NumericKey& key : numeric_keys()) {
    // Null is a value of its own where a family gives it a meaning.
    const std::set<std::string_view> with_meaning = {"attention_chunk_size", "sliding_window",
                                                     "n_group", "topk_group"};
    if (with_meaning.contains(key.name)) continue;
    if (GetParam() == "deepseek_v2" && key.name == kChosen) continue;  // without a default
    const auto c = parse_model_config(config_of(GetParam(), member(key.name, "null")), "c.json");
    EXPECT_TRUE(c.ok()) << key.name << ": " << c.status().to_string();
  }
}

TEST_P(EveryFamily, RefusesForeignKeysInsideTheRotaryDictionary) {
  for (const NumericKey& key : numeric_rope_keys()) {
    const std::string rope = R"({"rope_type": "default", ")" + std::string(key.name) + "\": [9]}";
    const auto c =
        parse_model_config(config_of(GetParam(), member("rope_scaling", rope)), "c.json");
    ASSERT_FALSE(c.ok()) << key.name;
    EXPECT_NE(c.status().message().find("rope_scaling." + std::string(key.name)), std::string::npos)
        << c.status().to_string();
  }
}

std::vector<std::string> family_names() {
  std::vector<std::string> names;
  for (const Family& family : families()) names.emplace_back(family.model_type);
  return names;
}

INSTANTIATE_TEST_SUITE_P(Families, EveryFamily, testing::ValuesIn(family_names()),
                         [](const auto& name) { return name.param; });

struct Case {
  const char* family;
  const char* key;
  const char* value;
};

void PrintTo(const Case& c, std::ostream* out) {
  *out << c.family << " " << c.key << " " << c.value;
}

class ForeignKeys : public testing::TestWithParam<Case> {};

TEST_P(ForeignKeys, IsRefusedWithKeyAndValue) {
  const Case& c = GetParam();
  const auto config =
      parse_model_config(config_of(c.family, member(c.key, c.value)), "config.json");
  ASSERT_FALSE(config.ok());
  EXPECT_EQ(config.status().code(), Code::kUnimplemented);
  EXPECT_NE(config.status().message().find(std::string(c.key) + " is "), std::string::npos)
      << config.status().to_string();
}

// Each of these ran with wrong numbers.
INSTANTIATE_TEST_SUITE_P(
    Keys, ForeignKeys,
    testing::Values(
        Case{"deepseek_v3", "index_topk", "2048"}, Case{"llama", "final_logit_softcapping", "30.0"},
        Case{"llama", "attn_logit_softcapping", "50"}, Case{"llama", "num_local_experts", "8"},
        Case{"llama", "logits_scaling", "8.0"}, Case{"llama", "use_rope", "false"},
        Case{"llama", "rotary_dim", "2"}, Case{"qwen3_moe", "scoring_func", "\"sigmoid\""},
        Case{"qwen3_moe", "use_qk_norm", "false"}, Case{"qwen3_moe", "n_shared_experts", "1"},
        Case{"mixtral", "routed_scaling_factor", "2.5"}, Case{"mixtral", "norm_topk_prob", "false"},
        Case{"mixtral", "num_experts_per_token", "4"}, Case{"gpt_oss", "norm_topk_prob", "false"},
        Case{"llama4_text", "norm_topk_prob", "true"}, Case{"deepseek_v3", "sliding_window", "128"},
        Case{"olmoe", "quantization", R"({"group_size": 64, "bits": 4})"},
        Case{"olmoe", "compression_config", R"({"quant_method": "x"})"},
        Case{"llama4", "quantization", R"({"bits": 4})"}));

class HarmlessKeys : public testing::TestWithParam<Case> {};

TEST_P(HarmlessKeys, IsAccepted) {
  const Case& c = GetParam();
  const auto config =
      parse_model_config(config_of(c.family, member(c.key, c.value)), "config.json");
  EXPECT_TRUE(config.ok()) << config.status().to_string();
}

INSTANTIATE_TEST_SUITE_P(
    Keys, HarmlessKeys,
    testing::Values(Case{"llama", "num_experts_per_tok", "0"}, Case{"llama", "num_experts", "0"},
                    Case{"llama", "rope_interleaved", "false"},
                    Case{"llama", "quantization_config", "{}"},
                    Case{"deepseek_v3", "quantization_config", "{}"},
                    Case{"llama", "sliding_window", R"(32768, "use_sliding_window": false)"},
                    Case{"qwen2_moe", "sliding_window", R"(32768, "use_sliding_window": false)"},
                    Case{"qwen3_moe", "scoring_func", "\"softmax\""},
                    Case{"deepseek_v3", "use_grouped_topk", "true"},
                    Case{"mixtral", "router_jitter_noise", "0.1"},
                    Case{"mixtral", "routed_scaling_factor", "1"},
                    Case{"mixtral", "norm_topk_prob", "true"},
                    Case{"llama4_text", "attn_scale", R"(0.5, "attn_temperature_tuning": false)"},
                    Case{"olmoe", "pretraining_tp", "2"}, Case{"olmoe", "use_cache", "false"},
                    Case{"olmoe", "an_unknown_key", "[1]"}));

}  // namespace
}  // namespace chimera
