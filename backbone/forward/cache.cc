// The cache's blocks under a pass, and softmax attention over them.
#include <algorithm>
#include <cstring>

#include "backbone/forward/pass.h"

namespace chimera {

void ForwardPass::collect_blocks(int64_t layer) {
  ws_.block_ptrs.clear();
  ws_.first_block.clear();
  for (const BatchSegment& segment : segments_) {
    ws_.first_block.push_back(static_cast<int64_t>(ws_.block_ptrs.size()));
    KvCache& cache = segment.kv->cache();
    for (KvCache::BlockId id : segment.kv->blocks())
      ws_.block_ptrs.push_back(cache.keys(id, layer));
    for (KvCache::BlockId id : segment.kv->blocks())
      ws_.block_ptrs.push_back(cache.values(id, layer));
  }
}

void ForwardPass::store_kv(int64_t r, const float* k, const float* v) {
  const int64_t size = segment_of(r).kv->cache().block_tokens();
  const int64_t block = row_position(r) / size;
  const int64_t slot = row_position(r) % size;
  std::memcpy(const_cast<float*>(key_blocks(r)[block]) + slot * c_.key_width(), k,
              static_cast<size_t>(c_.key_width()) * sizeof(float));
  if (v != nullptr)
    std::memcpy(const_cast<float*>(value_blocks(r)[block]) + slot * c_.value_width(), v,
                static_cast<size_t>(c_.value_width()) * sizeof(float));
}

/// A task is a row and the heads of one key/value head, or one head where that gives too few tasks;
/// task t goes to share t mod shares, because later rows of a prompt see more positions than
/// earlier ones.
void ForwardPass::attend(const AttentionMask& mask, const AttentionArgs& shape) {
  int64_t most = 0;
  int64_t work = 0;
  for (int64_t r = 0; r < rows_; ++r) {
    const int64_t visible = row_position(r) + 1 - mask.first_visible(row_position(r));
    most = std::max(most, visible);
    work += visible * shape.heads * shape.head_dim;
  }
  const bool inline_it = pool_.threads() == 1 || work < kInlineAttention;
  const bool by_group = inline_it || rows_ * shape.kv_heads >= 2 * pool_.threads();
  const int64_t units = by_group ? shape.kv_heads : shape.heads;
  const int64_t unit_heads = shape.heads / units;
  const int64_t tasks = rows_ * units;
  const int64_t shares = inline_it ? 1 : std::min(tasks, pool_.threads() * kSharesPerThread);
  ws_.scores.resize(static_cast<size_t>(shares * most));
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t share = begin; share < end; ++share) {
      AttentionArgs args = shape;
      args.scores = ws_.scores.data() + share * most;
      for (int64_t t = share; t < tasks; t += shares)
        attend_row(mask, args, t / units, t % units * unit_heads, unit_heads);
    }
  };
  if (inline_it)
    run(0, 1);
  else
    pool_.parallel_for(shares, 1, run);
}

void ForwardPass::attend_row(const AttentionMask& mask, AttentionArgs args, int64_t r, int64_t head,
                             int64_t heads) {
  args.q += r * args.heads * args.head_dim;
  args.out += r * args.heads * args.v_dim;
  args.k = key_blocks(r);
  args.v = value_blocks(r);
  args.block_tokens = segment_of(r).kv->cache().block_tokens();
  args.first = mask.first_visible(row_position(r));
  args.count = row_position(r) + 1;
  kernels_.attention(args, head, head + heads);
}

}  // namespace chimera
