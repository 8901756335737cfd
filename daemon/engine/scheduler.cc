#include "daemon/engine/scheduler.h"

#include <algorithm>

#include "base/steady_time.h"

namespace chimera {

void Batch::clear() {
  segments.clear();
  routed.clear();
  owners.clear();
}

int64_t Batch::logit_rows(size_t i) const {
  switch (segments[i].logits) {
    case BatchSegment::Logits::kNone:
      return 0;
    case BatchSegment::Logits::kLast:
      return 1;
    case BatchSegment::Logits::kAll:
      return static_cast<int64_t>(segments[i].tokens.size());
  }
  return 0;
}

bool Scheduler::fits(int64_t positions) const {
  const int64_t size = cache_->block_tokens();
  return (positions + size - 1) / size <= cache_->available_blocks();
}

Status Scheduler::place(Sequence& sequence) {
  sequence.computed = sequence.scoring() ? 0 : adopt_prefix(sequence);
  return sequence.kv.reserve(sequence.max_positions());
}

int64_t Scheduler::adopt_prefix(Sequence& sequence) {
  if (!prefix_cache_) return 0;
  const int64_t size = cache_->block_tokens();
  const int64_t usable = (static_cast<int64_t>(sequence.tokens.size()) - 1) / size;
  int64_t found = 0;
  for (; found < usable; ++found) {
    std::string key = next_key(sequence);
    const KvCache::BlockId block = cache_->lookup(key);
    if (block < 0) break;
    sequence.kv.adopt(block);
    sequence.block_keys.push_back(std::move(key));
  }
  return found * size;
}

void Scheduler::build(std::span<const std::unique_ptr<Sequence>> live, Batch& batch) const {
  batch.clear();
  int64_t budget = prefill_chunk_;
  for (const auto& sequence : live) {
    int64_t n = 1;
    if (!sequence->decoding()) {
      n = std::min(sequence->uncomputed(), budget);
      if (n <= 0) continue;
      budget -= n;
    }
    BatchSegment segment;
    segment.tokens = std::span<const int32_t>(sequence->tokens)
                         .subspan(static_cast<size_t>(sequence->computed), static_cast<size_t>(n));
    segment.position = sequence->computed;
    segment.kv = &sequence->kv;
    if (sequence->scoring()) {
      segment.logits = BatchSegment::Logits::kAll;
    } else if (n == sequence->uncomputed()) {
      segment.logits = BatchSegment::Logits::kLast;
    } else {
      segment.logits = BatchSegment::Logits::kNone;
    }
    batch.segments.push_back(segment);

    RoutedSegment routed;
    routed.view = sequence->view.get();
    routed.rows = n;
    routed.usage = &sequence->usage;
    routed.trace = sequence->routing.get();
    routed.trace_row = sequence->computed;
    const auto& deadline = sequence->request.deadline;
    if (deadline) routed.deadline_ns = steady_ns(*deadline);
    batch.routed.push_back(routed);
    batch.owners.push_back(sequence.get());
  }
}

void Scheduler::publish_blocks(Sequence& sequence) {
  // Scores would push the shared prefixes of chats out of the cache and never use their own.
  if (!prefix_cache_ || sequence.scoring()) return;
  const int64_t full = sequence.computed / cache_->block_tokens();
  while (static_cast<int64_t>(sequence.block_keys.size()) < full) {
    std::string key = next_key(sequence);
    cache_->publish(sequence.kv.blocks()[sequence.block_keys.size()], key);
    sequence.block_keys.push_back(std::move(key));
  }
}

/// Key of the first block that has none yet. The chain starts at the scope of the sequence's view,
/// so blocks of different compositions, masks or biases can never meet (design invariant 7).
std::string Scheduler::next_key(const Sequence& sequence) const {
  const int64_t size = cache_->block_tokens();
  const auto block = static_cast<int64_t>(sequence.block_keys.size());
  const std::string& parent = block == 0 ? sequence.view->scope : sequence.block_keys.back();
  return KvCache::chain_key(parent, sequence.tokens.data() + block * size, size);
}

}  // namespace chimera
