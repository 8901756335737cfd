// A Hugging Face checkpoint directory: config.json plus single or sharded safetensors.
//
// Thread safety: immutable after open.
#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backbone/safetensors.h"
#include "backbone/status.h"
#include "backbone/tensor.h"

namespace chimera {

class Checkpoint {
 public:
  /// Reads `dir`/model.safetensors or the shards of model.safetensors.index.json (shard names are
  /// plain file names inside `dir`; every tensor of the index must be where it says, and no
  /// tensor may appear twice).
  static Result<Checkpoint> open(const std::string& dir, Residency residency);

  const std::string& dir() const { return dir_; }
  /// Text of config.json (at most 1 MiB).
  const std::string& config_json() const { return config_json_; }
  bool has_tokenizer() const { return has_tokenizer_; }

  const TensorView* find(std::string_view name) const;
  /// The tensor, or not_found / data_corrupt naming tensor, found and expected shape.
  Result<TensorView> require(std::string_view name, std::span<const int64_t> shape) const;
  std::vector<std::string> names() const;  // sorted
  uint64_t file_bytes() const;

  /// A weight matrix of [rows, cols] at the given precision: in place when the stored dtype
  /// already fits, converted otherwise.
  Result<Matrix> matrix(std::string_view name, int64_t rows, int64_t cols, Precision p) const;
  /// A vector widened to F32.
  Result<std::vector<float>> vector(std::string_view name, int64_t n) const;

 private:
  std::string dir_;
  std::string config_json_;
  bool has_tokenizer_ = false;
  std::vector<std::shared_ptr<SafetensorsFile>> files_;
};

/// Matrix conversion of one 2-D tensor, used for checkpoints and module files alike.
Result<Matrix> to_matrix(const TensorView& t, int64_t rows, int64_t cols, Precision p);
/// `matrix` cut to rows [begin, end) of a [.., rows, cols] stack at index `i` (fused layouts).
Result<Matrix> slice_matrix(const TensorView& t, int64_t i, int64_t row0, int64_t rows,
                            int64_t cols, Precision p);
Result<std::vector<float>> to_f32(const TensorView& t, int64_t n);

}  // namespace chimera
