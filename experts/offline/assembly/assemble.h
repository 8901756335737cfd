// `chimera module assemble`: an assembly written as a checkpoint or a module.
//
// Thread safety: free functions; two must not write one directory.
#pragma once

#include <functional>
#include <string>

#include "base/io/env.h"
#include "base/json/json.h"
#include "base/status.h"
#include "experts/assembly/plan.h"

namespace chimera {

struct AssembleOptions {
  std::string out_dir;
  std::string cache_dir;                // of digests; empty: none
  uint64_t memory = uint64_t{2} << 30;  // bytes, about
  int threads = 1;
  std::function<void(uint64_t done, uint64_t total)> progress;  // bytes read and written
  Env* env = &Env::system();
};

/// Below this, buffers and tables alone may take more, bytes.
inline constexpr uint64_t kLeastAssemblyMemory = uint64_t{64} << 20;

/// Writes the directory, complete or not at all; a run that was killed is gone on with. What is
/// written depends on recipe, parents and version alone: the same bytes every time. The report:
/// output, tensors, merged, bytes.
Result<Json> assemble(const AssemblyPlan& plan, const AssembleOptions& options);

}  // namespace chimera
