// Offline surgery: cutting a checkpoint into backbone and modules, and putting it together again.
#pragma once

#include <map>
#include <string>
#include <vector>

#include "backbone/status.h"
#include "experts/manifest.h"

namespace chimera {

struct SplitModule {
  std::string name;
  std::map<int64_t, std::vector<int64_t>> slots;  // layer -> slots; key -1 = every MoE layer
};

struct SplitOptions {
  std::string checkpoint_dir;
  std::string backbone_out;          // directory to create: a checkpoint with the remaining experts
  std::string modules_out;           // parent directory of the module directories
  std::vector<SplitModule> modules;  // disjoint
  Attach attach = Attach::kAppend;   // append cuts experts out; replace copies them
  std::string license = "unknown";
};

/// Tensors are moved bit for bit. Existing output directories are refused, never overwritten.
Status split_checkpoint(const SplitOptions& options);

struct GraftOptions {
  std::string backbone_dir;
  std::vector<std::string> module_dirs;  // in composition order
  std::string out_dir;
};

/// Writes a checkpoint that Hugging Face loads. Appended experts return to the slots recorded by
/// `split` when every module records them, else they follow the base experts in order.
Status graft_checkpoint(const GraftOptions& options);

}  // namespace chimera
