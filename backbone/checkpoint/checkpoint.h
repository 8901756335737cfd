// A checkpoint: a Hugging Face directory of config.json plus single or sharded safetensors, or a
// GGUF file (single or split), which shows itself as such a directory would. Nothing above knows
// which. Weights that a directory holds quantised show themselves in the formats of the engine
// (quantized/quantized.h); their bytes are made when they are loaded
// (compute/tensor/tensor_source.h).
//
// Numbers are taken as they are stored: a NaN or infinity is no error here, the probe of a module
// finds it.
//
// Thread safety: immutable after open.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "backbone/checkpoint/packed_record.h"
#include "backbone/checkpoint/safetensors.h"
#include "base/io/env.h"
#include "base/status.h"
#include "compute/tensor/block_quant.h"
#include "compute/tensor/convert.h"
#include "compute/tensor/tensor.h"

namespace chimera {

class Checkpoint {
 public:
  /// Reads `dir`/model.safetensors or, without it, the shards of model.safetensors.index.json
  /// (shard names are plain file names inside `dir`; every tensor of the index must be where it
  /// says, every tensor of a shard must be in the index, and none may appear twice).
  /// `dir` may be a GGUF file instead, the first when it was split (gguf_model.h).
  static Result<Checkpoint> open(const std::string& dir, Residency residency,
                                 Env& env = Env::system());

  const std::string& dir() const { return dir_; }
  /// Text of config.json (at most 1 MiB), or of one for the tensors as they show themselves.
  const std::string& config_json() const { return config_json_; }
  bool has_tokenizer() const { return has_tokenizer_; }
  bool is_gguf() const { return is_gguf_; }
  /// How the files hold the weights, "GPTQ, 4 bits, groups of 128"; "" when they are as they show
  /// themselves.
  const std::string& quantization() const { return quantization_; }
  /// Why quantised weights cannot be read; the tensors are then those of the files.
  const Status& quantization_problem() const { return quantization_problem_; }
  /// What it was packed from, where its weights are stored packed; else nothing.
  const std::optional<PackedRecord>& packed() const { return packed_; }
  /// Refuses a packed one: for who wants its numbers (failed_precondition).
  Status check_unpacked() const;
  /// Refuses one that was packed for another plan (failed_precondition).
  Status check_packed_for(const PrecisionPlan& plan) const;
  /// What to call one of its files in messages: the path, or that of the GGUF file.
  std::string label(std::string_view name) const;
  /// Text of a file beside the weights, such as "tokenizer.json" or "generation_config.json", of at
  /// most `max_bytes`; nothing when there is none. unimplemented: the tokenizer of a GGUF file is
  /// of a kind that is not supported.
  Result<std::optional<std::string>> side_file(std::string_view name, size_t max_bytes) const;

  /// Null when absent.
  const TensorView* find(std::string_view name) const;
  /// The tensor, or not_found / data_corrupt naming tensor, found and expected shape.
  Result<TensorView> require(std::string_view name, std::span<const int64_t> shape) const;
  /// The same, and of dtype F32, F16 or BF16 (else unimplemented): what needs no scales.
  Result<TensorView> require_numbers(std::string_view name, std::span<const int64_t> shape) const;
  /// What `matrix` (two dimensions) or `vector` (one) checks before it converts anything: the
  /// tensor, its shape, its dtype, and the scales of FP8 weights. Reads headers only.
  Status check_weights(std::string_view name, std::span<const int64_t> shape) const;
  std::vector<std::string> names() const;  // sorted
  /// The files of the weights, in name order.
  const std::vector<std::shared_ptr<const TensorFile>>& files() const { return files_; }
  /// Size of all of them, bytes.
  uint64_t file_bytes() const;

  /// Blocks of FP8 weights that share a scale, as config.json says.
  BlockShape block_shape() const { return block_shape_; }
  /// Tells the system that the bytes of `t` are not needed in memory any more, after a conversion
  /// has copied them. They stay readable. Without effect on a copied checkpoint.
  void release(const TensorView& t) const;

  /// A weight matrix of [rows, cols] at the given precision: in place when the stored dtype
  /// already fits, converted otherwise; FP8 with its `weight_scale_inv` is widened. Errors as of
  /// check_weights, resource_exhausted, or failed_precondition: packed for another precision.
  Result<Matrix> matrix(std::string_view name, int64_t rows, int64_t cols, Precision p) const;
  /// A vector of [n] widened to F32.
  Result<std::vector<float>> vector(std::string_view name, int64_t n) const;

 private:
  /// The stored form that check_weights speaks of.
  struct Stored {
    TensorView tensor;
    std::optional<QuantMatrix> fp8;
  };
  Result<Stored> stored(std::string_view name, std::span<const int64_t> shape) const;

  void read_quantization();
  static Result<Checkpoint> open_gguf(const std::string& path, Residency residency, Env& env);

  std::string dir_;
  std::string config_json_;
  bool is_gguf_ = false;
  std::string quantization_;
  Status quantization_problem_;
  std::optional<PackedRecord> packed_;
  std::map<std::string, std::string, std::less<>> side_files_;  // of a GGUF file
  Status tokenizer_problem_;                                    // likewise
  bool has_tokenizer_ = false;
  BlockShape block_shape_;
  std::vector<std::shared_ptr<const TensorFile>> files_;
};

}  // namespace chimera
