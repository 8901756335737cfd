// The cache's blocks under a pass, and softmax attention over them.
#include <algorithm>

#include "backbone/forward/pass.h"

namespace chimera {

void ForwardPass::collect_blocks(int64_t layer) {
  ws_.blocks.clear();
  ws_.first_block.clear();
  for (const BatchSegment& segment : segments_) {
    ws_.first_block.push_back(static_cast<int64_t>(ws_.blocks.size()));
    KvCache& cache = segment.kv->cache();
    for (KvCache::BlockId id : segment.kv->blocks()) ws_.blocks.push_back(cache.keys(id, layer));
    for (KvCache::BlockId id : segment.kv->blocks()) ws_.blocks.push_back(cache.values(id, layer));
  }
  ws_.block_ptrs.resize(ws_.blocks.size());
  if (kv_format() != KvFormat::kF32) return;  // widen_blocks() sets them
  std::transform(ws_.blocks.begin(), ws_.blocks.end(), ws_.block_ptrs.begin(),
                 [](const std::byte* block) { return reinterpret_cast<const float*>(block); });
}

void ForwardPass::store_kv(int64_t r, const float* k, const float* v) {
  const int64_t size = segment_of(r).kv->cache().block_tokens();
  const int64_t block = row_position(r) / size;
  const int64_t slot = row_position(r) % size;
  const KvFormat format = kv_format();
  const auto put = [&](std::byte* to, const float* row, int64_t width) {
    narrow_numbers(format, row, width, to + slot * width * kv_number_bytes(format));
  };
  put(stored_keys(r)[block], k, c_.key_width());
  if (v != nullptr) put(stored_values(r)[block], v, c_.value_width());
}

void ForwardPass::attend(const AttentionMask& mask, const AttentionArgs& shape) {
  if (kv_format() == KvFormat::kF32) return attend_rows(mask, shape, 0, rows_);
  int64_t row0 = 0;
  for (size_t first = 0; first < segments_.size();) {
    const size_t end = widen_blocks(mask, first);
    int64_t rows = 0;
    for (; first < end; ++first) rows += static_cast<int64_t>(segments_[first].tokens.size());
    attend_rows(mask, shape, row0, rows);
    row0 += rows;
  }
}

size_t ForwardPass::widen_blocks(const AttentionMask& mask, size_t first) {
  const int64_t width = c_.key_width() + c_.value_width();
  int64_t floats = 0;
  size_t s = first;
  ws_.widenings.clear();
  for (; s < segments_.size(); ++s) {
    const BatchSegment& segment = segments_[s];
    const int64_t size = segment.kv->cache().block_tokens();
    const int64_t begin = mask.first_visible(segment.position) / size;
    const int64_t count = segment.position + static_cast<int64_t>(segment.tokens.size());
    if (s > first && floats + (count - begin * size) * width > ws_.most_widened) break;
    const auto keys = static_cast<size_t>(ws_.first_block[s]);
    for (int64_t block = begin; block * size < count; ++block) {
      const int64_t tokens = std::min(size, count - block * size);
      const size_t at = keys + static_cast<size_t>(block);
      ws_.widenings.push_back({at, at + segment.kv->blocks().size(), tokens, floats});
      floats += tokens * width;
    }
  }
  // Never less than it was: what grows again is filled with zeros first.
  if (ws_.wide.size() < static_cast<size_t>(floats)) ws_.wide.resize(static_cast<size_t>(floats));
  const auto blocks = static_cast<int64_t>(ws_.widenings.size());
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) widen_block(ws_.widenings[static_cast<size_t>(i)]);
  };
  if (floats < kInlineFloats)
    run(0, blocks);
  else
    pool_.parallel_for(blocks, blocks / (pool_.threads() * kSharesPerThread) + 1, run);
  return s;
}

void ForwardPass::widen_block(const Workspace::Widening& block) {
  float* const keys = ws_.wide.data() + block.to;
  float* const values = c_.value_width() == 0 ? keys : keys + block.tokens * c_.key_width();
  widen_numbers(kv_format(), ws_.blocks[block.keys], block.tokens * c_.key_width(), keys);
  widen_numbers(kv_format(), ws_.blocks[block.values], block.tokens * c_.value_width(), values);
  ws_.block_ptrs[block.keys] = keys;
  ws_.block_ptrs[block.values] = values;
}

/// A task is a row and the heads of one key/value head, or one head where that gives too few tasks;
/// task t goes to share t mod shares, because later rows of a prompt see more positions than
/// earlier ones.
void ForwardPass::attend_rows(const AttentionMask& mask, const AttentionArgs& shape, int64_t row0,
                              int64_t rows) {
  int64_t most = 0;
  int64_t work = 0;
  for (int64_t r = row0; r < row0 + rows; ++r) {
    const int64_t visible = row_position(r) + 1 - mask.first_visible(row_position(r));
    most = std::max(most, visible);
    work += visible * shape.heads * shape.head_dim;
  }
  const bool inline_it = pool_.threads() == 1 || work < kInlineAttention;
  const bool by_group = inline_it || rows * shape.kv_heads >= 2 * pool_.threads();
  const int64_t units = by_group ? shape.kv_heads : shape.heads;
  const int64_t unit_heads = shape.heads / units;
  const int64_t tasks = rows * units;
  const int64_t shares = inline_it ? 1 : std::min(tasks, pool_.threads() * kSharesPerThread);
  ws_.scores.resize(static_cast<size_t>(shares * most));
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t share = begin; share < end; ++share) {
      AttentionArgs args = shape;
      args.scores = ws_.scores.data() + share * most;
      for (int64_t t = share; t < tasks; t += shares)
        attend_row(mask, args, row0 + t / units, t % units * unit_heads, unit_heads);
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
