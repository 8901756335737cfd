// A shape under the names and with the metadata of GGUF.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <optional>
#include <system_error>

#include "backbone/families/needed_tensors.h"
#include "backbone/gguf/gguf_write.h"
#include "bench/synth/checkpoint.h"

namespace chimera::bench {
namespace {

using enum TensorRole;

/// A family as the format knows it. Those whose queries and keys it keeps in another order are not
/// here.
struct Architecture {
  std::string_view family, name;
  bool
      expert_width;  // feed_forward_length is that of dense layers, experts have a key of their own
};
constexpr std::array kArchitectures{Architecture{"olmoe", "olmoe", false},
                                    Architecture{"qwen2_moe", "qwen2moe", true},
                                    Architecture{"qwen3_moe", "qwen3moe", true}};

std::string families_here() {
  std::string names;
  for (const Architecture& a : kArchitectures)
    names += (names.empty()                              ? ""
              : a.family == kArchitectures.back().family ? " or "
                                                         : ", ") +
             std::string(a.family);
  return names;
}

/// What follows "blk.L."; "" for what no family here has.
std::string_view stem_of(TensorRole role) {
  switch (role) {
    case kQ:
    case kQBias:
      return "attn_q";
    case kK:
    case kKBias:
      return "attn_k";
    case kV:
    case kVBias:
      return "attn_v";
    case kO:
      return "attn_output";
    case kQNorm:
      return "attn_q_norm";
    case kKNorm:
      return "attn_k_norm";
    case kAttentionNorm:
      return "attn_norm";
    case kFfnNorm:
      return "ffn_norm";
    case kDenseGate:
      return "ffn_gate";
    case kDenseUp:
      return "ffn_up";
    case kDenseDown:
      return "ffn_down";
    case kSharedGate:
      return "ffn_gate_shexp";
    case kSharedUp:
      return "ffn_up_shexp";
    case kSharedDown:
      return "ffn_down_shexp";
    case kSharedScore:
      return "ffn_gate_inp_shexp";
    default:
      return "";
  }
}

class GgufMaker {
 public:
  GgufMaker(const Shape& shape, StoredType type)
      : shape_(shape), c_(shape.config), dtype_(dtype_of(type)) {}

  Result<std::vector<TensorView>> tensors() {
    for (const NeededTensor& t : needed_model_tensors(c_)) {
      const bool head = t.role == kHead;
      const std::string name = t.role == kEmbedding ? "token_embd.weight"
                               : head               ? "output.weight"
                                                    : "output_norm.weight";
      CHIMERA_RETURN_IF_ERROR(add(t, name, head ? head_dtype() : dtype_));
    }
    for (int64_t l = 0; l < c_.num_layers; ++l) CHIMERA_RETURN_IF_ERROR(add_layer(l));
    return std::move(out_);
  }

  std::vector<GgufEntry> metadata(const Architecture& a) const {
    std::vector<GgufEntry> out{{"general.architecture", std::string(a.name)},
                               {"general.name", "random weights of " + c_.model_type},
                               {"general.quantization_version", uint32_t{2}}};
    const auto put = [&](std::string_view key, auto value) {
      out.emplace_back(std::string(a.name) + "." + std::string(key), value);
    };
    const auto count = [&](std::string_view key, int64_t n) { put(key, static_cast<uint32_t>(n)); };
    count("vocab_size", c_.vocab_size);
    count("context_length", c_.max_position_embeddings);
    count("embedding_length", c_.hidden_size);
    count("block_count", c_.num_layers);
    count("attention.head_count", c_.num_heads);
    count("attention.head_count_kv", c_.num_kv_heads);
    count("attention.key_length", c_.head_dim);
    count("attention.value_length", c_.head_dim);
    put("attention.layer_norm_rms_epsilon", c_.rms_norm_eps);
    put("rope.freq_base", static_cast<float>(c_.rope.theta));
    count("rope.dimension_count", c_.head_dim);
    count("expert_count", c_.num_experts);
    count("expert_used_count", c_.num_experts_per_tok);
    put("expert_weights_norm", c_.norm_topk_prob);
    const int64_t dense = std::max(c_.dense_intermediate_size, c_.intermediate_size);
    count("feed_forward_length", a.expert_width ? dense : c_.intermediate_size);
    if (a.expert_width) count("expert_feed_forward_length", c_.intermediate_size);
    if (c_.shared_intermediate_size > 0)
      count("expert_shared_feed_forward_length", c_.shared_intermediate_size);
    add_vocabulary(out);
    return out;
  }

 private:
  /// SentencePiece pieces: the unknown one, two marks, a piece for every byte, then made-up ones.
  /// Programs that print what they generate want some vocabulary.
  void add_vocabulary(std::vector<GgufEntry>& out) const {
    constexpr int64_t kMarks = 3, kBytes = 256;
    constexpr int32_t kNormal = 1, kUnknown = 2, kControl = 3, kByte = 6;
    const bool room = c_.vocab_size >= kMarks + kBytes;
    out.emplace_back("tokenizer.ggml.model", std::string(room ? "llama" : "no_vocab"));
    if (!room) return;
    std::vector<std::string> pieces{"<unk>", "<s>", "</s>"};
    std::vector<int32_t> kinds{kUnknown, kControl, kControl};
    for (int64_t id = kMarks; id < c_.vocab_size; ++id) {
      const bool byte = id < kMarks + kBytes;
      pieces.push_back(byte ? fmt::format("<0x{:02X}>", id - kMarks) : fmt::format("w{}", id));
      kinds.push_back(byte ? kByte : kNormal);
    }
    out.emplace_back("tokenizer.ggml.tokens", std::move(pieces));
    out.emplace_back("tokenizer.ggml.scores",
                     std::vector<float>(static_cast<size_t>(c_.vocab_size), 0.0f));
    out.emplace_back("tokenizer.ggml.token_type", std::move(kinds));
    out.emplace_back("tokenizer.ggml.bos_token_id", uint32_t{1});
    out.emplace_back("tokenizer.ggml.eos_token_id", uint32_t{2});
    out.emplace_back("tokenizer.ggml.unknown_token_id", uint32_t{0});
  }
  /// Converters give the head two bits more than the four of the rest.
  DType head_dtype() const {
    const bool four = dtype_ == DType::kQ4_0 || dtype_ == DType::kQ4_K || dtype_ == DType::kMXFP4;
    return four && c_.hidden_size % unit_of(DType::kQ6_K).elements == 0 ? DType::kQ6_K : dtype_;
  }
  uint64_t seed(const std::string& name) const { return seed_of(shape_.seed, name); }

  Status put(Result<TensorView> made) {
    if (!made.ok()) return made.status();
    out_.push_back(std::move(*made));
    return {};
  }

  Status add(const NeededTensor& t, const std::string& name, DType dtype) {
    if (t.shape.size() == 2) {
      const double size = t.role == kEmbedding ? 1.0 : even_size(t.shape[1]);
      if (t.role == kSharedScore) dtype = DType::kF32;
      return put(random_matrix(name, dtype, seed(t.name), t.shape[0], t.shape[1], size));
    }
    const bool norm = t.name.find("norm") != std::string::npos;
    return put(norm ? ones(name, DType::kF32, t.shape[0])
                    : random_vector(name, DType::kF32, seed(t.name), t.shape[0]));
  }

  Status add_layer(int64_t l) {
    const std::string prefix = "blk." + std::to_string(l) + ".";
    for (const NeededTensor& t : needed_layer_tensors(c_, l)) {
      const std::string_view stem = stem_of(t.role);
      if (stem.empty()) return {Code::kUnimplemented, t.name + ": has no name in GGUF here"};
      const bool bias = t.name.ends_with(".bias");
      CHIMERA_RETURN_IF_ERROR(
          add(t, prefix + std::string(stem) + (bias ? ".bias" : ".weight"), dtype_));
    }
    return c_.moe_layers[static_cast<size_t>(l)] != 0 ? add_routed(l, prefix) : Status();
  }

  Status add_routed(int64_t l, const std::string& prefix) {
    const TensorNames& names = tensor_names(c_);
    const int64_t hidden = c_.hidden_size, width = c_.intermediate_size;
    const std::string gate = layer_tensor(c_, l, names.gate);
    CHIMERA_RETURN_IF_ERROR(
        put(random_matrix(prefix + "ffn_gate_inp.weight", DType::kF32, seed(gate), c_.num_experts,
                          hidden, even_size(hidden))));
    struct Projection {
      const char* stem;
      const std::string& tail;
      int64_t rows, cols;
    };
    for (const Projection& p : {Projection{"ffn_gate_exps", names.expert_gate, width, hidden},
                                Projection{"ffn_up_exps", names.expert_up, width, hidden},
                                Projection{"ffn_down_exps", names.expert_down, hidden, width}}) {
      std::vector<uint64_t> seeds;
      for (int64_t e = 0; e < c_.num_experts; ++e)
        seeds.push_back(seed(expert_tensor(c_, l, e, p.tail)));
      CHIMERA_RETURN_IF_ERROR(
          put(random_stack(prefix + p.stem + ".weight", dtype_, std::move(seeds), p.rows, p.cols,
                           even_size(p.cols))));
    }
    return {};
  }

  const Shape& shape_;
  const ModelConfig& c_;
  const DType dtype_;
  std::vector<TensorView> out_;
};

}  // namespace

Status write_synthetic_gguf(const Shape& shape, StoredType type, const std::string& path) {
  const auto* const found =
      std::find_if(kArchitectures.begin(), kArchitectures.end(),
                   [&](const Architecture& a) { return a.family == shape.config.model_type; });
  if (found == kArchitectures.end())
    return {Code::kUnimplemented,
            "model_type: found " + shape.config.model_type + " (expected " + families_here() +
                " for a GGUF file)",
            "Without --gguf every family is written."};
  GgufMaker maker(shape, type);
  const Result<std::vector<TensorView>> tensors = maker.tensors();
  if (!tensors.ok()) return tensors.status();
  std::error_code error;
  if (std::filesystem::exists(path, error))
    return {Code::kAlreadyExists, path + ": exists (expected a new file)"};
  return write_gguf(path, maker.metadata(*found), *tensors);
}

}  // namespace chimera::bench
