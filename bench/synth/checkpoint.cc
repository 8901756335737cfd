#include "bench/synth/checkpoint.h"

#include <array>
#include <filesystem>
#include <system_error>

#include "backbone/checkpoint/safetensors.h"
#include "backbone/families/needed_tensors.h"
#include "base/io/env.h"

namespace chimera::bench {
namespace {

class Maker {
 public:
  Maker(const Shape& shape, DType dtype) : shape_(shape), c_(shape.config), dtype_(dtype) {}

  Result<std::vector<TensorView>> run() {
    for (const NeededTensor& t : needed_model_tensors(c_)) CHIMERA_RETURN_IF_ERROR(add(t));
    for (int64_t l = 0; l < c_.num_layers; ++l) {
      for (const NeededTensor& t : needed_layer_tensors(c_, l)) CHIMERA_RETURN_IF_ERROR(add(t));
      if (c_.moe_layers[static_cast<size_t>(l)] != 0) CHIMERA_RETURN_IF_ERROR(add_routed(l));
    }
    return std::move(out_);
  }

 private:
  uint64_t seed(const std::string& name) const { return seed_of(shape_.seed, name); }

  Status matrix(const std::string& name, int64_t rows, int64_t cols, double size) {
    Result<TensorView> made = random_matrix(name, dtype_, seed(name), rows, cols, size);
    if (!made.ok()) return made.status();
    out_.push_back(std::move(*made));
    return {};
  }
  void vector(const std::string& name, int64_t n) {
    out_.push_back(random_vector(name, dtype_, seed(name), n));
  }

  Status add(const NeededTensor& t) {
    if (t.shape.size() == 2) {
      // Rows of the embedding are inputs.
      const double size = t.role == TensorRole::kEmbedding ? 1.0 : even_size(t.shape[1]);
      return matrix(t.name, t.shape[0], t.shape[1], size);
    }
    const bool norm = t.name.find("norm") != std::string::npos;
    if (norm)
      out_.push_back(ones(t.name, dtype_, t.shape[0]));
    else
      vector(t.name, t.shape[0]);
    return {};
  }

  Status add_routed(int64_t layer) {
    const TensorNames& names = tensor_names(c_);
    const auto named = [&](const std::string& tail) { return layer_tensor(c_, layer, tail); };
    const int64_t experts = c_.num_experts;
    if (!c_.dense_base) {
      CHIMERA_RETURN_IF_ERROR(
          matrix(named(names.gate), experts, c_.hidden_size, even_size(c_.hidden_size)));
      if (c_.gate_bias) vector(named(names.gate_bias), experts);
      if (c_.score_correction) vector(named(names.score_correction), experts);
    }
    for (int64_t e = 0; e < experts; ++e) CHIMERA_RETURN_IF_ERROR(add_expert(layer, e));
    return {};
  }

  Status add_expert(int64_t layer, int64_t e) {
    const TensorNames& names = tensor_names(c_);
    const bool biases =
        c_.expert_kind == ExpertKind::kClampedSwiGlu || (c_.dense_base && c_.mlp_bias);
    struct Projection {
      const std::string& tail;
      int64_t rows, cols;
    };
    const int64_t hidden = c_.hidden_size, width = c_.intermediate_size;
    for (const Projection& p :
         {Projection{names.expert_gate, width, hidden}, Projection{names.expert_up, width, hidden},
          Projection{names.expert_down, hidden, width}}) {
      if (p.tail.empty())
        return {Code::kUnimplemented, c_.model_type + ": its experts have no tensors of their own"};
      const std::string name = expert_tensor(c_, layer, e, p.tail);
      CHIMERA_RETURN_IF_ERROR(matrix(name, p.rows, p.cols, even_size(p.cols)));
      if (biases) vector(name.substr(0, name.rfind('.')) + ".bias", p.rows);
    }
    return {};
  }

  const Shape& shape_;
  const ModelConfig& c_;
  const DType dtype_;
  std::vector<TensorView> out_;
};

}  // namespace

Status write_synthetic(const Shape& shape, StoredType type, const std::string& directory) {
  const DType dtype = dtype_of(type);
  if (is_block_type(dtype))
    return {Code::kInvalidArgument,
            "type: found " + kStoredTypeNames.text(type) + " (expected f32, f16 or bf16)",
            "Other types are written as GGUF: --gguf."};
  const Result<std::vector<TensorView>> tensors = Maker(shape, dtype).run();
  if (!tensors.ok()) return tensors.status();
  std::error_code error;
  if (std::filesystem::exists(directory, error))
    return {Code::kAlreadyExists, directory + ": exists (expected a new directory)"};
  std::filesystem::create_directories(directory, error);
  if (error) return errno_status(directory, error.value());
  CHIMERA_RETURN_IF_ERROR(write_safetensors(directory + "/model.safetensors", *tensors, {}));
  return write_file_durably(Env::system(), directory + "/config.json", shape.config_json, 0644);
}

}  // namespace chimera::bench
