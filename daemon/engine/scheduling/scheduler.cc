#include "daemon/engine/scheduling/scheduler.h"

#include <algorithm>
#include <numeric>
#include <unordered_set>

#include "base/steady_time.h"

namespace chimera {
namespace {

/// `order` with those that are the same as another one right behind the first of them; else as it
/// was.
template <class Same>
std::vector<size_t> gathered(const std::vector<size_t>& order, const Same& same) {
  std::vector<size_t> out;
  std::vector<bool> placed(order.size(), false);
  for (size_t i = 0; i < order.size(); ++i) {
    for (size_t j = i; j < order.size() && !placed[i]; ++j) {
      if (placed[j] || !same(order[i], order[j])) continue;
      out.push_back(order[j]);
      if (j > i) placed[j] = true;
    }
  }
  return out;
}

}  // namespace

void Batch::clear() {
  segments.clear();
  routed.clear();
  owners.clear();
  guesses.clear();
}

void Batch::group() {
  const auto backbone = [this](size_t i) { return routed[i].view->active->backbone(); };
  const auto adapters = [this](size_t i) { return segments[i].adapters; };
  const size_t n = segments.size();
  size_t first = 0;
  while (first < n && adapters(first).empty() && backbone(first) == nullptr) ++first;
  if (first == n) return;
  // Order changes no bits.
  std::vector<size_t> order(n);
  std::iota(order.begin(), order.end(), size_t{0});
  order = gathered(
      order, [&](size_t i, size_t j) { return std::ranges::equal(adapters(i), adapters(j)); });
  order = gathered(order, [&](size_t i, size_t j) { return backbone(i) == backbone(j); });
  const Batch before = *this;
  for (size_t i = 0; i < n; ++i) {
    segments[i] = before.segments[order[i]];
    routed[i] = before.routed[order[i]];
    owners[i] = before.owners[order[i]];
    guesses[i] = before.guesses[order[i]];
  }
}

size_t Batch::end_of_pass(size_t first) const {
  size_t end = first + 1;
  while (end < segments.size() &&
         routed[end].view->active->backbone() == routed[first].view->active->backbone())
    ++end;
  return end;
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

size_t Batch::state_rows(size_t i) const {
  return segments[i].states ? segments[i].tokens.size() : 0;
}

int64_t Scheduler::blocks_for(int64_t positions) const {
  const int64_t size = cache_->block_tokens();
  return (positions + size - 1) / size;
}

int64_t Scheduler::lacking(const Sequence& sequence, int64_t positions) const {
  const auto has = static_cast<int64_t>(sequence.kv.blocks().size());
  return std::max<int64_t>(0, blocks_for(positions) - has);
}

bool Scheduler::fits(int64_t tokens, Live live) const {
  int64_t wanted = blocks_for(tokens);
  for (const auto& sequence : live) {
    if (sequence->waits_for_adapters()) continue;  // has no blocks, and needs none yet
    if (sequence->paused) return false;
    wanted += lacking(*sequence, static_cast<int64_t>(sequence->tokens.size()));
  }
  return wanted <= cache_->available_blocks();
}

void Scheduler::place(Sequence& sequence) {
  sequence.computed = sequence.generating() ? adopt_prefix(sequence) : 0;
}

int64_t Scheduler::adopt_prefix(Sequence& sequence) {
  if (!prefix_cache_) return 0;
  const int64_t size = cache_->block_tokens();
  int64_t found = 0;
  for (; can_share_next(sequence); ++found) {
    std::string key = next_key(sequence);
    const KvCache::BlockId block = cache_->lookup(key);
    if (block < 0) break;
    sequence.kv.adopt(block);
    sequence.block_keys.push_back(std::move(key));
  }
  return found * size;
}

bool Scheduler::can_share_next(const Sequence& sequence) const {
  const auto known = static_cast<int64_t>(sequence.block_keys.size());
  const int64_t last = static_cast<int64_t>(sequence.tokens.size()) - 1;
  return prefix_cache_ && sequence.generating() && known < last / cache_->block_tokens();
}

bool Scheduler::is_at_block(const Sequence& sequence) const {
  const size_t known = sequence.block_keys.size();
  return sequence.kv.blocks().size() == known &&
         sequence.computed == static_cast<int64_t>(known) * cache_->block_tokens();
}

void Scheduler::catch_up(Sequence& sequence) {
  if (!can_share_next(sequence) || !is_at_block(sequence)) return;
  const int64_t found = adopt_prefix(sequence);
  sequence.computed += found;
  if (sequence.generated() > 0) return;  // it is told what was found of its prompt
  sequence.cached = std::min(sequence.cached + found, sequence.computed);
  found_ += static_cast<uint64_t>(found);
}

void Scheduler::build(Live live, Batch& batch) {
  batch.clear();
  units_ = 0.0;
  has_prompts_ = false;
  resume(live);
  runs_.clear();
  for (const auto& sequence : live) {
    const bool waits = sequence->paused || sequence->awaits_experts || !sequence->mask_known();
    if (!sequence->paused && !sequence->awaits_experts) catch_up(*sequence);
    const bool decodes = !waits && sequence->decoding();
    runs_.push_back({sequence.get(), decodes ? 1 : 0});
    if (!decodes) continue;
    plan_draft(*sequence);
    const auto rows = static_cast<int64_t>(1 + sequence->draft.size());
    units_ += pace_.units(rows, sequence->computed);
  }
  share_out(runs_);
  to_come_ = 0;
  for (const Run& run : runs_) to_come_ += blocks_of(run);
  for (size_t i = 0; i < live.size(); ++i) {
    Sequence& s = *live[i];
    to_come_ -= blocks_of(runs_[i]);
    // Whoever was before it in the list may have paused it in the meantime.
    const bool runs =
        runs_[i].tokens > 0 && !s.paused && grow(live, i, s.computed + runs_[i].tokens);
    if (!runs) continue;
    add_to(batch, runs_[i]);
    if (s.decoding()) {
      if (!s.draft.empty()) add_draft(batch, s);
      continue;
    }
    units_ += pace_.units(runs_[i].tokens, s.computed);
    has_prompts_ = true;
  }
  batch.group();
}

void Scheduler::share_out(std::vector<Run>& runs) const {
  std::vector<Run*> prompts;
  for (Run& run : runs) {
    const bool waits = run.sequence->paused || run.sequence->runnable() == 0;
    if (run.tokens == 0 && !waits) prompts.push_back(&run);
  }
  if (prompts.empty()) return;
  // Live sequences that do not run wait as well.
  const bool lone = runs.size() == 1;
  double units = pace_.allowance(units_, lone);
  // Where every row leaves logits, their memory is that of a chunk.
  int64_t rows = lone && !prompts.front()->sequence->scoring() ? lone_chunk_ : prefill_chunk_;
  const auto give = [&](Run& run, double most) {
    const int64_t at = run.sequence->computed + run.tokens;
    const int64_t left = run.sequence->runnable() - run.tokens;
    const int64_t n = std::min({left, rows, pace_.rows(std::min(most, units), at)});
    run.tokens += n;
    rows -= n;
    units -= pace_.units(n, at);
  };
  // What begins alike is computed once: blocks that one prompt computes in this step are there for
  // the others in the next one.
  std::unordered_set<std::string> begun;
  const auto begin = [&](const Sequence& s) {
    const auto known = static_cast<int64_t>(s.block_keys.size());
    // One whose blocks are not published, as they are not what their keys say, is waited for by
    // none.
    const bool now = can_share_next(s) && s.computed / cache_->block_tokens() == known;
    if (now) begun.insert(next_key(s));
  };
  Run& first = *prompts.front();
  give(first, units / 4.0);
  if (first.tokens == 0) {
    // So far back that a quarter is less than one row.
    first.tokens = 1;
    --rows;
    units -= pace_.units(1, first.sequence->computed);
  }
  begin(*first.sequence);
  std::stable_sort(prompts.begin(), prompts.end(), [](const Run* x, const Run* y) {
    return x->sequence->uncomputed() < y->sequence->uncomputed();
  });
  for (Run* run : prompts) {
    const Sequence& s = *run->sequence;
    const bool shares = run->tokens == 0 && can_share_next(s) && is_at_block(s);
    if (shares && begun.contains(next_key(s))) continue;
    give(*run, units);
    if (run->tokens > 0) begin(s);
  }
}

void Scheduler::resume(Live live) {
  for (size_t i = 0; i < live.size(); ++i) {
    if (!live[i]->paused || live[i]->waits_for_adapters()) continue;
    int64_t wanted = 0;
    for (const auto& other : live) {
      if (!other->paused || other == live[i]) wanted += lacking(*other, other->max_positions());
    }
    if (i > 0 && wanted > cache_->available_blocks()) return;  // nor do those after it
    live[i]->paused = false;
    place(*live[i]);
  }
}

bool Scheduler::grow(Live live, size_t i, int64_t positions) {
  size_t last = live.size();
  while (!live[i]->kv.reserve(positions).ok()) {
    do {
      if (--last == i) return false;
    } while (live[last]->kv.blocks().empty());
    pause(*live[last]);
  }
  return true;
}

void Scheduler::pause(Sequence& sequence) {
  sequence.restart();
  sequence.paused = true;
  ++paused_;
}

void Scheduler::record(double ms) {
  if (has_prompts_) pace_.record(units_, ms);
}

void Scheduler::add_to(Batch& batch, const Run& run) const {
  Sequence& s = *run.sequence;
  BatchSegment segment;
  segment.tokens = std::span<const int32_t>(s.tokens).subspan(static_cast<size_t>(s.computed),
                                                              static_cast<size_t>(run.tokens));
  segment.position = s.computed;
  segment.kv = &s.kv;
  segment.adapters = s.view->backbone_adapters;
  segment.states = s.embedding();
  if (s.scoring()) {
    segment.logits = BatchSegment::Logits::kAll;
  } else if (s.generating() && run.tokens == s.uncomputed()) {
    segment.logits = BatchSegment::Logits::kLast;
  } else {
    segment.logits = BatchSegment::Logits::kNone;
  }
  batch.segments.push_back(segment);

  RoutedSegment routed;
  routed.view = s.view.get();
  routed.rows = run.tokens;
  routed.usage = &s.usage;
  if (s.request.want_shares) routed.last_row = &s.last_usage;
  routed.trace = s.routing.get();
  routed.trace_row = s.computed;
  if (s.request.deadline) routed.deadline_ns = steady_ns(*s.request.deadline);
  batch.routed.push_back(routed);
  batch.owners.push_back(&s);
  batch.guesses.push_back(0);
}

int64_t Scheduler::blocks_of(const Run& run) const {
  return run.tokens == 0 ? 0 : lacking(*run.sequence, run.sequence->computed + run.tokens);
}

void Scheduler::plan_draft(Sequence& s) const {
  s.draft.clear();
  if (!ngram_speculation_) return;
  // A step gives one token more than guesses of it hold.
  s.draft = s.drafter.draft(s.tokens, s.max_new - s.generated() - 1);
}

void Scheduler::add_draft(Batch& batch, Sequence& s) const {
  const int64_t positions = s.computed + 1 + static_cast<int64_t>(s.draft.size());
  // What the others of this step need is left, and what every sequence may for its next token.
  const int64_t blocks = lacking(s, positions) + to_come_ + static_cast<int64_t>(runs_.size());
  if (blocks > cache_->available_blocks() || !s.kv.reserve(positions).ok()) return s.draft.clear();
  for (size_t d = 0; d < s.draft.size(); ++d) {
    // As the segment before it, one position on.
    BatchSegment segment = batch.segments.back();
    segment.tokens = {&s.draft[d], 1};
    segment.position += 1;
    RoutedSegment routed = batch.routed.back();
    routed.provisional = true;
    batch.segments.push_back(segment);
    batch.routed.push_back(std::move(routed));
    batch.owners.push_back(&s);
    batch.guesses.push_back(d + 1);
  }
}

void Scheduler::publish_blocks(Sequence& sequence) {
  // What reads would push the shared prefixes of chats out of the cache and never use its own.
  if (!prefix_cache_ || !sequence.generating()) return;
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
