#include "text/constraint/cache.h"

#include <algorithm>

namespace chimera::constraint {

ConstraintCache::ConstraintCache(std::shared_ptr<const Tokenizer> tokenizer, int64_t vocab,
                                 std::vector<int32_t> ends)
    : tokenizer_(std::move(tokenizer)), vocab_(vocab), ends_(std::move(ends)) {}

std::shared_ptr<const TokenTable> ConstraintCache::tokens() {
  const MutexLock lock(mutex_);
  if (!tokens_) tokens_ = std::make_shared<const TokenTable>(tokenizer_, vocab_, ends_);
  return tokens_;
}

Result<ConstraintPtr> ConstraintCache::get(const Spec& spec) {
  const auto of_spec = [&](const auto& entry) { return entry.first == spec; };
  {
    const MutexLock lock(mutex_);
    const auto found = std::find_if(entries_.begin(), entries_.end(), of_spec);
    if (found != entries_.end()) {
      entries_.splice(entries_.begin(), entries_, found);
      return found->second;
    }
  }
  Result<ConstraintPtr> made = Constraint::compile(spec, tokens());
  if (!made.ok()) return made;
  const MutexLock lock(mutex_);
  const auto found = std::find_if(entries_.begin(), entries_.end(), of_spec);
  if (found != entries_.end()) return found->second;
  entries_.emplace_front(spec, *made);
  if (entries_.size() > kMaxCached) entries_.pop_back();
  return made;
}

}  // namespace chimera::constraint
