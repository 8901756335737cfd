// A parent of an assembly: a Hugging Face checkpoint or a module of kind weights, opened and taken
// apart into tensors with names that do not depend on how it is stored.
//
// Experts in stacks become one tensor per expert and projection; scales of FP8 and MXFP4 weights
// disappear into the weights they belong to.
//
// Lifetime: tensors share the memory of the mapped files.
//
// Thread safety: immutable after open.
#pragma once

#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "backbone/checkpoint/checkpoint.h"
#include "backbone/checkpoint/safetensors.h"
#include "backbone/families/model_config.h"
#include "base/status.h"
#include "base/threads/thread_pool.h"
#include "experts/assembly/selection.h"
#include "experts/assembly/tensor_data.h"
#include "experts/module/manifest.h"

namespace chimera {

struct ParentTensor {
  TensorTraits traits;
  TensorData data;
};

class Parent {
 public:
  /// not_found, or what Checkpoint and the module's manifest say. A module of another kind than
  /// `weights` is unimplemented.
  static Result<Parent> open(const std::string& path);

  const std::string& path() const { return path_; }
  bool is_module() const { return manifest_.has_value(); }
  /// REQUIRES: is_module().
  const Manifest& manifest() const { return *manifest_; }
  /// REQUIRES: !is_module().
  const Checkpoint& checkpoint() const { return *checkpoint_; }
  const ModelConfig& config() const { return *config_; }
  /// The files, in name order.
  std::vector<const TensorFile*> files() const;

  /// By name.
  const std::map<std::string, ParentTensor>& tensors() const { return tensors_; }
  const ParentTensor* find(const std::string& name) const;
  /// Names in the order in which the files store them.
  const std::vector<std::string>& order() const { return order_; }
  bool any_quantised() const;

 private:
  Status read_checkpoint();
  Status read_module();
  Status add_stacks(int64_t layer);
  Status add_plain(const TensorView& tensor, TensorTraits traits,
                   const std::function<const TensorView*(const std::string&)>& find,
                   BlockShape block);
  void add(TensorTraits traits, TensorData data);

  std::string path_;
  std::shared_ptr<const Checkpoint> checkpoint_;
  std::optional<ModelConfig> config_;
  std::optional<Manifest> manifest_;
  std::vector<SafetensorsFile> module_files_;
  std::map<std::string, ParentTensor> tensors_;
  std::vector<std::string> order_;
};

/// "sha256:…" over name, dtype, shape and bytes of every stored tensor in name order, and
/// config.json: what a parent is, however it is cut into files. Computed by all threads of the pool
/// and cached in `cache_dir` (empty: not) under the identity of the files, as fingerprints are.
Result<std::string> parent_digest(const Parent& parent, const std::string& cache_dir,
                                  ThreadPool& pool);

}  // namespace chimera
