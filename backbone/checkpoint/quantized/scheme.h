// What a quantisation scheme of Hugging Face checkpoints is: a reader of its part of config.json,
// and how the tensors of one matrix become one that the engine knows. Private to this folder; to
// add a scheme, write one such file and list it in schemes.cc.
//
// Weights alone count. Where a scheme quantises activations as well (W8A8), they stay wide here,
// which is more exact than the scheme's own runtime; the scales that the files hold for them, and
// those for a quantised KV cache, are known by name and left unused.
//
// Lifetime: views share the memory of the files they come from.
//
// Thread safety: schemes are immutable after reading; free functions.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backbone/families/family.h"
#include "base/status.h"
#include "compute/tensor/block_quant.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// The object of config.json that speaks of quantisation.
struct QuantSection {
  std::string_view config_json;
  std::string_view label;
  std::vector<std::string> path;  // of keys: {"quantization_config"}

  /// A reader of it, or of an object inside: after `inside`.
  std::unique_ptr<ConfigReader> reader(std::initializer_list<std::string_view> inside = {}) const;
};

/// The tensors of one matrix, by what follows its name, ".qweight" and so on.
class StoredLinear {
 public:
  StoredLinear(std::string stem, std::string label)
      : stem_(std::move(stem)), label_(std::move(label)) {}

  /// "model.layers.0.self_attn.q_proj"
  const std::string& stem() const { return stem_; }
  std::string weight_name() const { return stem_ + ".weight"; }
  void add(std::string_view tail, const TensorView& tensor) { parts_.emplace(tail, tensor); }
  bool has(std::string_view tail) const { return parts_.find(tail) != parts_.end(); }
  /// Null when absent.
  const TensorView* find(std::string_view tail) const;
  /// The part, which must be there with one of these dtypes. data_corrupt.
  Result<TensorView> require(std::string_view tail, std::span<const DType> dtypes) const;
  /// Refuses every part that is not among `tails`: nothing is left out by accident.
  Status only(std::span<const std::string_view> tails) const;
  /// data_corrupt about one of its tensors: "tensor X WHAT".
  Status corrupt(const TensorView& part, const std::string& what) const;
  /// Refuses another shape.
  Status check_shape(const TensorView& part, std::span<const int64_t> shape) const;

 private:
  std::string stem_;
  std::string label_;
  std::map<std::string, TensorView, std::less<>> parts_;
};

class Scheme {
 public:
  Scheme() = default;
  Scheme(const Scheme&) = delete;
  Scheme& operator=(const Scheme&) = delete;
  virtual ~Scheme() = default;

  /// "gptq: 4 bits, groups of 128": for people.
  virtual std::string description() const = 0;
  /// What may follow the name of a matrix; the first one says that it is quantised.
  virtual std::span<const std::string_view> tails() const = 0;
  /// Those of it that are known and left unused.
  virtual std::span<const std::string_view> unused_tails() const;
  /// The matrix as "stem.weight" [outputs, inputs] (and "stem.weight_scale_inv" with FP8), or
  /// several of them from a stack. data_corrupt: parts missing, or of other dtypes and shapes.
  virtual Result<std::vector<TensorView>> native(const StoredLinear& linear) const = 0;
  /// Of the weights that native() leaves as FP8.
  virtual std::optional<BlockShape> fp8_block() const { return std::nullopt; }
};

struct SchemeEntry {
  std::string_view method;  // quantization_config.quant_method
  Result<std::unique_ptr<Scheme>> (*read)(const QuantSection& section);
};

/// All of them, by name.
std::span<const SchemeEntry> quant_schemes();

// One per file.
Result<std::unique_ptr<Scheme>> read_awq(const QuantSection& section);
Result<std::unique_ptr<Scheme>> read_compressed_tensors(const QuantSection& section);
Result<std::unique_ptr<Scheme>> read_fp8(const QuantSection& section);
Result<std::unique_ptr<Scheme>> read_gptq(const QuantSection& section);
Result<std::unique_ptr<Scheme>> read_mlx(const QuantSection& section);
Result<std::unique_ptr<Scheme>> read_modelopt(const QuantSection& section);

/// Parts that several schemes have.
/// FP8 weight [rows, cols] with scales of any of F32, BF16 and F16 that stand once per block, as
/// "stem.weight" and "stem.weight_scale_inv" [scale_rows, scale_cols]; both in place.
Result<std::vector<TensorView>> fp8_tensors(const StoredLinear& linear, std::string_view scale_tail,
                                            BlockShape block);
/// NVFP4: codes U8 [rows, cols / 2], scales F8_E4M3 [rows, cols / 16], and one F32 number that
/// divides them, or multiplies them.
enum class GlobalScale : uint8_t { kDivides, kMultiplies };
Result<std::vector<TensorView>> nvfp4_tensors(const StoredLinear& linear, std::string_view codes,
                                              std::string_view global, GlobalScale use);

/// One block for a whole row, or for a whole matrix: no matrix is larger.
inline constexpr int64_t kWholeSide = int64_t{1} << 20;

}  // namespace chimera
