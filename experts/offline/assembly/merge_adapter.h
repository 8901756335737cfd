// `chimera module merge`: an adapter folded into the weights it changes.
//
// Thread safety: a free function; two must not write one directory.
#pragma once

#include <cstdint>
#include <string>

#include "base/json/json.h"
#include "base/status.h"
#include "experts/offline/cut.h"

namespace chimera {

struct MergeOptions {
  std::string adapter;   // directory of a module of kind lora
  std::string backbone;  // the checkpoint that it changes
  std::string out;       // directory; must not exist
  /// Empty: the whole checkpoint is written. Else a module of kind weights of this name, with the
  /// experts that the adapter changes, in the place of the backbone's own.
  std::string module;
  /// Of that module. Its weights are the backbone's with the adapter's added: neither's license
  /// alone is theirs. The adapter's stands in provenance.parents.
  std::string license = "unknown";
  uint64_t shard_bytes = kShardBytes;
  int threads = 1;
};

/// W + scale * B A (Hu et al. 2021, arXiv 2106.09685) for every weight that the adapter changes,
/// summed in float64 and rounded once, to nearest even, to the type that the weight is stored in;
/// whatever else is written, bit for bit as it was. In memory are the changed weights of one shard,
/// or of the module. Nothing is left behind on failure.
/// unimplemented: weights that are quantised would change; failed_precondition: a module of an
/// adapter that changes more than experts, or a sum beyond the range of its type; data_corrupt: a
/// weight that would change and is not finite. Errors further as of loading either, and
/// already_exists.
Result<Json> merge_adapter(const MergeOptions& options);

}  // namespace chimera
