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
  ws_.visible.clear();
  for (int64_t r = 0; r < rows_; ++r)
    ws_.visible.push_back({mask.first_visible(row_position(r)), row_position(r) + 1});
  if (kv_format() == KvFormat::kF32) return attend_rows(shape, {0, rows_});
  RowRun run;
  for (size_t first = 0; first < segments_.size(); run.first += run.rows) {
    const size_t end = widen_blocks(mask, first);
    for (run.rows = 0; first < end; ++first)
      run.rows += static_cast<int64_t>(segments_[first].tokens.size());
    attend_rows(shape, run);
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
    pool_.parallel_for(blocks, blocks / (pool_.threads() * kForwardShares) + 1, run);
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

/// Cuts rows into runs of one segment, as many as one read of the cache serves - fewer where that
/// leaves threads without one.
void ForwardPass::cut_rows(const RowRun& of, int64_t unit_heads, int64_t units) {
  int64_t most = std::max<int64_t>(1, kAttentionQueries / unit_heads);
  while (most > 1 && of.rows / most * units < pool_.threads() * kForwardShares)
    most = (most + 1) / 2;
  ws_.row_runs.clear();
  for (int64_t r = of.first; r < of.first + of.rows;) {
    const int64_t first = r;
    while (r < of.first + of.rows && r - first < most && row_segment(r) == row_segment(first)) ++r;
    ws_.row_runs.push_back({first, r - first});
  }
}

/// A task is some rows and the heads of one key/value head, or one head where that gives too few
/// tasks; task t goes to share t mod shares, because later rows of a prompt see more positions than
/// earlier ones.
void ForwardPass::attend_rows(const AttentionArgs& shape, const RowRun& of) {
  int64_t work = 0;
  for (int64_t r = of.first; r < of.first + of.rows; ++r) {
    const VisibleRange& visible = ws_.visible[static_cast<size_t>(r)];
    work += (visible.count - visible.first) * shape.heads * shape.head_dim;
  }
  const bool inline_it = pool_.threads() == 1 || work < kInlineAttention;
  const bool by_group = inline_it || of.rows * shape.kv_heads >= 2 * pool_.threads();
  const int64_t units = by_group ? shape.kv_heads : shape.heads;
  const int64_t unit_heads = shape.heads / units;
  cut_rows(of, unit_heads, units);
  int64_t scratch = 0;
  for (const RowRun& run : ws_.row_runs)
    scratch = std::max(scratch, attention_scratch(rows_of(run, shape)));
  const auto tasks = static_cast<int64_t>(ws_.row_runs.size()) * units;
  const int64_t shares =
      inline_it ? 1 : std::min(tasks, attention_shares(pool_.threads(), scratch));
  ws_.scores.resize(static_cast<size_t>(shares * scratch));
  const auto run = [&](int64_t begin, int64_t end) {
    for (int64_t share = begin; share < end; ++share)
      for (int64_t t = share; t < tasks; t += shares) {
        AttentionArgs args = rows_of(ws_.row_runs[static_cast<size_t>(t / units)], shape);
        args.scratch = ws_.scores.data() + share * scratch;
        const int64_t head = t % units * unit_heads;
        kernels_.attention(args, head, head + unit_heads);
      }
  };
  if (inline_it)
    run(0, 1);
  else
    pool_.parallel_for(shares, 1, run);
}

AttentionArgs ForwardPass::rows_of(const RowRun& run, AttentionArgs args) const {
  args.q += run.first * args.heads * args.head_dim;
  args.out += run.first * args.heads * args.v_dim;
  args.rows = run.rows;
  args.visible = ws_.visible.data() + run.first;
  args.k = key_blocks(run.first);
  args.v = value_blocks(run.first);
  args.block_tokens = segment_of(run.first).kv->cache().block_tokens();
  return args;
}

}  // namespace chimera
