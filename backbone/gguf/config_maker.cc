#include "backbone/gguf/config_maker.h"

#include <array>
#include <cmath>
#include <cstdio>
#include <cstdlib>

#include "backbone/gguf/rope_factors.h"
#include "base/quote.h"

namespace chimera {
namespace {

constexpr int64_t kMostLayers = 4096;  // of a config.json

}  // namespace

void GgufConfigMaker::refuse(const std::string& what, const std::string& expected) {
  fields_.fail(Code::kUnimplemented, what + " (expected " + expected + ")");
}

void GgufConfigMaker::copy(const char* json_key, std::string_view name) {
  if (const auto value = integer(name)) config[json_key] = *value;
}

void GgufConfigMaker::common(const char* model_type) {
  config["model_type"] = model_type;
  config["hidden_size"] = required("embedding_length");
  config["num_hidden_layers"] = required("block_count");
  heads_ = required("attention.head_count");
  config["num_attention_heads"] = heads_;
  config["num_key_value_heads"] = integer("attention.head_count_kv").value_or(heads_);
  config["max_position_embeddings"] = required("context_length");
  config["rms_norm_eps"] = decimal(number("attention.layer_norm_rms_epsilon").value_or(1e-5));
  config["hidden_act"] = "silu";
  config["tie_word_embeddings"] = !has_tensor("output.weight");
  const TensorView* embedding = find_("token_embd.weight");
  if (embedding == nullptr || embedding->shape.size() != 2)
    return fields_.fail(Code::kDataCorrupt, "lacks the tensor token_embd.weight");
  config["vocab_size"] = embedding->shape[0];
  if (const auto eos = fields_.integer("tokenizer.ggml.eos_token_id")) {
    Json ids = Json::array({*eos});
    for (const char* more : {"tokenizer.ggml.eot_token_id", "tokenizer.ggml.eom_token_id"}) {
      const auto id = fields_.integer(more);
      if (id && *id != *eos && *id < embedding->shape[0]) ids.push_back(*id);
    }
    config["eos_token_id"] = std::move(ids);
  }
}

void GgufConfigMaker::head_dim() {
  const auto stated = integer("attention.key_length");
  const auto values = integer("attention.value_length");
  if (stated) config["head_dim"] = *stated;
  if (stated && values && *stated != *values)
    refuse(key("attention.value_length") + " is " + std::to_string(*values),
           std::to_string(*stated) + ", as attention.key_length");
  const int64_t width =
      stated.value_or(heads_ == 0 ? 0 : config["hidden_size"].integer().value_or(0) / heads_);
  const auto rotated = integer("rope.dimension_count");
  if (rotated && *rotated != width)
    refuse(key("rope.dimension_count") + " is " + std::to_string(*rotated),
           std::to_string(width) + ", the size of a head");
}

void GgufConfigMaker::rope() {
  config["rope_theta"] = decimal(number("rope.freq_base").value_or(1e4));
  const std::string* type = fields_.text(key("rope.scaling.type"));
  if (const TensorView* factors = find_("rope_freqs.weight")) {
    const auto scaling = llama3_scaling(*factors, config["rope_theta"].number().value_or(1e4));
    if (!scaling) return refuse("tensor rope_freqs.weight", "the factors of a llama3 rope scaling");
    config["rope_scaling"] = *scaling;
    return;
  }
  if (type == nullptr || *type == "none") return;
  const double factor = decimal(number("rope.scaling.factor").value_or(1.0));
  if (*type == "linear") {
    config["rope_scaling"] = Json{{"rope_type", "linear"}, {"factor", factor}};
  } else if (*type == "yarn") {
    yarn(factor);
  } else {
    refuse(key("rope.scaling.type") + " is " + quote(*type), "none, linear or yarn");
  }
}

void GgufConfigMaker::yarn(double factor) {
  Json scaling{
      {"rope_type", "yarn"},
      {"factor", factor},
      {"original_max_position_embeddings", required("rope.scaling.original_context_length")}};
  for (const char* name : {"beta_fast", "beta_slow"}) {
    if (const auto beta = number("rope.scaling.yarn_" + std::string(name)))
      scaling[name] = decimal(*beta);
  }
  const double attention = number("rope.scaling.attn_factor").value_or(1.0);
  if (attention != 1.0) refuse(key("rope.scaling.attn_factor"), "1");
  config["rope_scaling"] = std::move(scaling);
}

void GgufConfigMaker::experts() {
  config["num_experts"] = required("expert_count");
  config["num_experts_per_tok"] = required("expert_used_count");
}

void GgufConfigMaker::dense_layers() {
  Json list = Json::array();
  const int64_t layers = config["num_hidden_layers"].integer().value_or(0);
  for (int64_t l = 0; l < layers && l < kMostLayers; ++l) {
    if (!has_tensor("blk." + std::to_string(l) + ".ffn_gate_inp.weight")) list.push_back(l);
  }
  config["mlp_only_layers"] = std::move(list);
}

void GgufConfigMaker::gating(int64_t expected, const char* name) {
  const auto stated = integer("expert_gating_func");
  if (stated && *stated != expected && *stated != 0)
    refuse(key("expert_gating_func") + " is " + std::to_string(*stated),
           std::to_string(expected) + ", " + name);
}

double GgufConfigMaker::decimal(double value) {
  const auto narrow = static_cast<float>(value);
  if (double{narrow} != value || !std::isfinite(value)) return value;
  for (int digits = 1; digits <= 9; ++digits) {
    std::array<char, 32> text;
    std::snprintf(text.data(), text.size(), "%.*e", digits - 1, value);
    const double shorter = std::strtod(text.data(), nullptr);
    if (static_cast<float>(shorter) == narrow) return shorter;
  }
  return value;
}

}  // namespace chimera
