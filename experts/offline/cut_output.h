// What split and graft write: directories that appear complete or not at all, checkpoints as
// Hugging Face stores them.
//
// Thread safety: an object by one thread; free functions from any.
#pragma once

#include <cstdint>
#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "backbone/checkpoint/checkpoint.h"
#include "base/status.h"
#include "compute/tensor/tensor.h"

namespace chimera {

/// `path` without slashes at its end; already_exists when something is there.
Result<std::string> new_output_path(const std::string& path);

/// A directory built under "PATH.partial" and renamed into place by commit(); removed otherwise,
/// with the parent directories that had to be made for it.
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
  /// Takes a commit back: the directory is under its partial name again.
  void withdraw();

 private:
  OutputDirectory(std::string path, std::string partial, std::string made)
      : path_(std::move(path)), partial_(std::move(partial)), made_(std::move(made)) {}
  std::string path_;
  std::string partial_;
  std::string made_;  // outermost directory that create() had to make; empty: none
  bool committed_ = false;
};

/// Several output directories that appear together or not at all.
class OutputSet {
 public:
  OutputSet() = default;
  OutputSet(const OutputSet&) = delete;
  OutputSet& operator=(const OutputSet&) = delete;
  ~OutputSet();  // removes what was not committed, the latest first

  /// OutputDirectory::create; gives where to write meanwhile.
  Result<std::string> create(const std::string& path);
  Status commit();

 private:
  std::vector<OutputDirectory> outputs_;
};

/// Writes `dir`/model.safetensors, or shards of at most `shard_bytes` (a larger tensor gets its
/// own) with model.safetensors.index.json. Tensors keep their order.
Status write_checkpoint_tensors(const std::string& dir, const std::vector<TensorView>& tensors,
                                uint64_t shard_bytes);
/// The same for tensors that are made when their shard is written: `planned` are their names,
/// dtypes and shapes.
using TensorMaker = std::function<Result<TensorView>(const TensorView& planned)>;
Status write_checkpoint_tensors(const std::string& dir, const std::vector<TensorView>& planned,
                                uint64_t shard_bytes, const TensorMaker& make);

/// Writes what a checkpoint has beside weights and config.json into the directory `to`: tokenizer
/// and generation files.
Status copy_side_files(const Checkpoint& from, const std::string& to);
/// The first of those files that two checkpoints do not have alike; nothing: none.
Result<std::optional<std::string>> other_side_file(const Checkpoint& a, const Checkpoint& b);
/// That the files of a checkpoint are still those that it was opened from, for who wrote something
/// that was made from them: data_corrupt.
Status check_unchanged(const Checkpoint& checkpoint);

struct ConfigEdit {
  int64_t num_experts = 0;
  int64_t num_experts_per_tok = 0;
  /// How many experts the whole checkpoint has, where fewer than num_experts_per_tok are left.
  std::optional<int64_t> whole_experts;
  /// Over how many experts the groups of a grouped gate were laid, where some are missing now; none
  /// where they are complete.
  std::optional<int64_t> grouped_experts;
};
/// config.json with these numbers, every other key as it was. They go where the file has them: the
/// top level, or text_config of a composite checkpoint.
Result<std::string> edit_config(const std::string& config_json, const std::string& label,
                                const ConfigEdit& edit);

}  // namespace chimera
