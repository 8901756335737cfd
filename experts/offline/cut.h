// Offline surgery: cutting a checkpoint into backbone and modules, and putting it together again.
//
// Thread safety: free functions, from any thread; two must not write one directory.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "base/status.h"
#include "experts/module/manifest.h"

namespace chimera {

/// Largest weights file that is written, bytes: what Hugging Face's own writer uses.
inline constexpr uint64_t kShardBytes = 5'000'000'000;

struct SplitModule {
  std::string name;
  // Layer -> slots; key -1 = every MoE layer. Empty with SplitOptions::parent_dir: all changes.
  std::map<int64_t, std::vector<int64_t>> slots;
};

struct SplitOptions {
  std::string checkpoint_dir;
  /// Not empty: cut by difference. What the checkpoint changed against this parent becomes the
  /// modules, which then belong to the parent's backbone: `replace` modules, or `append` modules
  /// when it has more experts than the parent. backbone_out and attach are not used.
  std::string parent_dir;
  std::string backbone_out;          // directory to create: a checkpoint with the remaining experts
  std::string modules_out;           // parent directory of the module directories
  std::vector<SplitModule> modules;  // disjoint
  Attach attach = Attach::kAppend;   // append cuts experts out; replace copies them
  std::string license = "unknown";
  uint64_t shard_bytes = kShardBytes;
};

struct SplitReport {
  std::string fingerprint;          // of the backbone that was written
  int64_t experts_left = 0;         // per layer
  int64_t num_experts_per_tok = 0;  // of the backbone, as it was: fewer experts may be left
  std::vector<std::string> module_dirs;
};

/// Tensors are moved bit for bit; quantised ones stay as they are. Existing output directories are
/// refused, never overwritten; on failure none of the outputs exists. `append` takes the same
/// number of experts out of every layer with a router (config.json has one count for all) and
/// leaves at least one; `replace` takes any. A backbone with grouped routing is written with the
/// tensor `expert_group` beside each gate, because groups need not be of one size any more. By
/// difference: failed_precondition when more than experts and gate rows changed.
Result<SplitReport> split_checkpoint(const SplitOptions& options);

struct GraftOptions {
  std::string backbone_dir;
  std::vector<std::string> module_dirs;  // in composition order
  std::string out_dir;
  uint64_t shard_bytes = kShardBytes;
};

struct GraftReport {
  int64_t experts = 0;  // per layer
  int64_t num_experts_per_tok = 0;
  bool original_slots = false;  // every appended expert went back to where `split` found it
};

/// Writes a checkpoint that Hugging Face loads. Appended experts return to the slots recorded by
/// `split` when every module records them, else they follow the base experts in order. Gate rows
/// of different dtypes become F32, which is exact. Experts are stored in the layout and encoding
/// of the backbone's own. What a checkpoint cannot express (a gate bias where the family has none,
/// experts of another width or encoding, experts outside the groups of a grouped gate, a module for
/// some layers only, an expert beside a dense feed-forward) is refused.
Result<GraftReport> graft_checkpoint(const GraftOptions& options);

}  // namespace chimera
