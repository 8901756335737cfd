// What split and graft write: directories that appear complete or not at all, checkpoints as
// Hugging Face stores them.
//
// Thread safety: an object by one thread; free functions from any.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// A directory built under "PATH.partial" and renamed into place by commit(); removed otherwise.
class OutputDirectory {
 public:
  /// already_exists when `path` exists.
  static Result<OutputDirectory> create(const std::string& path);
  OutputDirectory(OutputDirectory&& other) noexcept;
  OutputDirectory& operator=(OutputDirectory&&) = delete;
  ~OutputDirectory();

  /// Where to write meanwhile.
  const std::string& partial() const { return partial_; }
  Status commit();

 private:
  OutputDirectory(std::string path, std::string partial)
      : path_(std::move(path)), partial_(std::move(partial)) {}
  std::string path_;
  std::string partial_;  // empty once committed
};

/// Writes `dir`/model.safetensors, or shards of at most `shard_bytes` (a larger tensor gets its
/// own) with model.safetensors.index.json. Tensors keep their order.
Status write_checkpoint_tensors(const std::string& dir, const std::vector<TensorView>& tensors,
                                uint64_t shard_bytes);

/// Copies what a checkpoint has beside weights and config.json: tokenizer and generation files.
Status copy_side_files(const std::string& from, const std::string& to);

struct ConfigEdit {
  int64_t num_experts = 0;
  int64_t num_experts_per_tok = 0;
  /// Over how many experts the groups of a grouped gate were laid, where some are missing now; none
  /// where they are complete.
  std::optional<int64_t> grouped_experts;
};
/// config.json with these numbers, every other key as it was. They go where the file has them: the
/// top level, or text_config of a composite checkpoint.
Result<std::string> edit_config(const std::string& config_json, const std::string& label,
                                const ConfigEdit& edit);

}  // namespace chimera
