// Writes the shards of a plan: tensors are measured one after the other, and their rows computed
// and written by all threads, a window of bounded size at a time.
//
// Memory: what threads need (assembler.h), whole slices of stacks that store experts transposed,
// and the mapped pages of one window; pages are given back behind it.
//
// Thread safety: one thread, which owns the pool.
#pragma once

#include <functional>
#include <set>
#include <string>
#include <vector>

#include "base/io/env.h"
#include "base/status.h"
#include "base/threads/thread_pool.h"
#include "experts/assembly/plan.h"

namespace chimera {

struct WrittenShard {
  std::string file;                  // name
  std::vector<std::string> tensors;  // that it holds
};

struct WriteOptions {
  uint64_t memory = 0;                           // bytes
  std::function<void(uint64_t bytes)> progress;  // bytes read and written so far
  Env* env = nullptr;
};

/// Writes the shards that `dir` does not hold yet. data_corrupt naming tensors, up to a limit, with
/// numbers that are not finite; nothing that was written then is of use.
Result<std::vector<WrittenShard>> write_shards(const AssemblyPlan& plan, const std::string& dir,
                                               ThreadPool& pool, const WriteOptions& options);

}  // namespace chimera
