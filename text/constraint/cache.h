// The constraints of one model that were asked for lately, compiled.
//
// Thread safety: from any thread. Two that ask for the same new one at once may both compile it.
#pragma once

#include <cstdint>
#include <list>
#include <memory>
#include <utility>
#include <vector>

#include "base/threads/mutex.h"
#include "text/constraint/constraint.h"

namespace chimera::constraint {

/// With kMaxKept of each about 128 MiB, twice that beside hostile ones; schemas of a few dozen
/// members take about 1 MiB.
inline constexpr size_t kMaxCached = 16;

class ConstraintCache {
 public:
  /// As TokenTable, which is built at the first use: that takes 0.1 s for 100,000 tokens.
  ConstraintCache(std::shared_ptr<const Tokenizer> tokenizer, int64_t vocab,
                  std::vector<int32_t> ends);

  /// The compiled constraint, or why there is none (Constraint::compile).
  Result<ConstraintPtr> get(const Spec& spec) EXCLUDES(mutex_);

 private:
  std::shared_ptr<const TokenTable> tokens() EXCLUDES(mutex_);

  const std::shared_ptr<const Tokenizer> tokenizer_;
  const int64_t vocab_;
  const std::vector<int32_t> ends_;
  Mutex mutex_;
  std::shared_ptr<const TokenTable> tokens_ GUARDED_BY(mutex_);
  std::list<std::pair<Spec, ConstraintPtr>> entries_ GUARDED_BY(mutex_);  // used last comes first
};

}  // namespace chimera::constraint
