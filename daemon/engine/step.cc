#include "daemon/engine/step.h"

#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <filesystem>
#include <limits>
#include <utility>

#include "base/io/mapping_guard.h"

namespace chimera {
namespace {

Status poisoned_status(const Sequence& sequence, const RoutedSegment& routed) {
  if (mapping_damaged()) {
    // Its name only: where it lies is not for clients.
    const std::string name = std::filesystem::path(damaged_mapping()).filename();
    return {Code::kDataCorrupt, name + ": shrank while the daemon was using it",
            "restart the daemon with intact weights, and put new ones in place by renaming"};
  }
  if (!routed.failure.ok()) return routed.failure;
  return {Code::kDataCorrupt,
          fmt::format("an expert of epoch {} gave a value that is not finite",
                      sequence.view->table->epoch()),
          "exclude the module by modules.exclude, and have its owner check it"};
}

Status bad_values_status(const Sequence& sequence) {
  return {Code::kDataCorrupt,
          fmt::format("the {} after {} tokens on epoch {} are not finite",
                      sequence.embedding() ? "hidden states" : "logits", sequence.computed,
                      sequence.epoch),
          "check the checkpoint and the modules the request permits"};
}

}  // namespace

Step::Step(std::shared_ptr<const Backbone> backbone, int threads, uint64_t mask_work,
           LiveSequences* live, Statistics* statistics, GateSamples* samples)
    : backbone_(std::move(backbone)),
      mask_work_(mask_work),
      live_(live),
      statistics_(statistics),
      kernels_(best_kernels()),
      pool_(threads),
      router_(backbone_->config(), kernels_, pool_),
      sampler_(backbone_->config(), &router_, samples) {}

bool Step::run() {
  const Clock::time_point begin = Clock::now();
  find_masks();
  live_->scheduler().build(live_->all(), batch_);
  const size_t count = batch_.segments.size();
  statistics_->counters().paused += live_->scheduler().take_paused();
  statistics_->counters().cached_tokens += live_->scheduler().take_found();
  if (count == 0)
    return false;  // those whose turn it is wait for blocks; the next turn is another's
  using Milliseconds = std::chrono::milliseconds;
  const auto now = std::chrono::system_clock::now().time_since_epoch();
  statistics_->router()->pass = {statistics_->counters().steps + 1,
                                 std::chrono::duration_cast<Milliseconds>(now).count()};
  for (size_t first = 0; first < count;) {
    const size_t end = batch_.end_of_pass(first);
    run_pass(first, end - first);
    first = end;
  }
  batch_.clear();
  ++statistics_->counters().steps;
  const double ms = std::chrono::duration<double, std::milli>(Clock::now() - begin).count();
  live_->scheduler().record(ms);
  statistics_->record_step(ms);
  return true;
}

void Step::run_pass(size_t first, size_t count) {
  const Status status = forward(first, count);
  if (status.ok()) return take_results(first, count);
  // Somebody in the batch made the whole pass fail. Alone, every other sequence gives the very
  // same bits (the kernels are batch invariant), so only the culprit is lost.
  for (size_t i = first; i < first + count; ++i) {
    if (batch_.guesses[i] > 0) continue;
    forget_draft(*batch_.owners[i]);  // it may have been a guess
    Status alone = count == 1 ? status : forward(i, 1);
    if (alone.ok())
      take_results(i, 1);
    else
      live_->fail(*batch_.owners[i], alone.with_context("forward pass"));
  }
}

void Step::find_masks() {
  unmasked_.clear();
  for (const auto& sequence : live_->all()) {
    if (!sequence->ended && !sequence->mask_known()) unmasked_.push_back(sequence.get());
  }
  if (unmasked_.empty()) return;
  const uint64_t each = std::max<uint64_t>(mask_work_ / unmasked_.size(), 1);
  pool_.parallel_for(static_cast<int64_t>(unmasked_.size()), 1, [&](int64_t begin, int64_t end) {
    for (int64_t i = begin; i < end; ++i) {
      uint64_t work = each;
      unmasked_[static_cast<size_t>(i)]->guide->look_on(&work);
    }
  });
}

void Step::let_go() { sampler_.begin_pass({}, nullptr); }

Status Step::forward(size_t first, size_t count) {
  sampler_.begin_pass(std::span(batch_.routed).subspan(first, count), statistics_->router());
  const Backbone& backbone = batch_.routed[first].view->active->backbone_or(*backbone_);
  Status status = backbone.forward(std::span(batch_.segments).subspan(first, count), sampler_,
                                   kernels_, pool_, workspace_);
  if (status.ok()) sampler_.end_pass();
  return status;
}

void Step::take_results(size_t first, size_t count) {
  const auto vocab = static_cast<size_t>(backbone_->config().vocab_size);
  const auto width = static_cast<size_t>(backbone_->config().hidden_size);
  const float* logits = workspace_.logits.data();
  const float* states = workspace_.states.data();
  samples_.clear();
  guess_logits_.assign(batch_.segments.size(), {});
  for (size_t i = first; i < first + count; ++i) {
    Sequence& s = *batch_.owners[i];
    const auto rows = static_cast<size_t>(batch_.logit_rows(i));
    const float* own = logits;
    logits += rows * vocab;
    const std::span<const float> own_states(states, batch_.state_rows(i) * width);
    states += own_states.size();
    if (batch_.guesses[i] > 0) {
      guess_logits_[i] = {own, vocab};
      continue;  // once it is known to be what was drawn
    }
    if (!advance(i)) continue;
    if (s.scoring())
      take_scores(s, {own, rows * vocab});
    else if (s.embedding())
      take_states(s, own_states);
    else if (rows > 0)
      samples_.push_back({&s, i, {own, vocab}, {}});
  }
  // Again for those whose guess was the token drawn: its row has the logits of the next one.
  while (!samples_.empty()) {
    pool_.parallel_for(static_cast<int64_t>(samples_.size()), 1, [&](int64_t begin, int64_t end) {
      for (int64_t i = begin; i < end; ++i) {
        Sample& sample = samples_[static_cast<size_t>(i)];
        sample.drawn = sample.sequence->draw(sample.logits);
      }
    });
    size_t left = 0;
    for (const Sample& sample : samples_) {
      accept(sample);
      Sample next = next_of_draft(sample, first, first + count);
      if (next.sequence != nullptr) samples_[left++] = std::move(next);
    }
    samples_.resize(left);
  }
  settle_drafts(first, first + count);
}

void Step::forget_draft(Sequence& sequence) {
  if (sequence.draft.empty()) return;
  sequence.drafter.record(static_cast<int64_t>(sequence.draft.size()), 0);
  sequence.kv.shrink(sequence.computed + 1);
}

Step::Sample Step::next_of_draft(const Sample& sample, size_t first, size_t end) {
  Sequence& s = *sample.sequence;
  const size_t next = sample.entry + 1;
  const bool guessed = next < end && batch_.owners[next] == &s && batch_.guesses[next] > 0;
  if (!guessed || s.ended || s.draft[batch_.guesses[next] - 1] != s.tokens.back()) return {};
  // What went wrong with a guess is nobody's fault: its token runs again in the next step. There,
  // too, those wait whose masks take long.
  const RoutedSegment& routed = batch_.routed[next];
  if (routed.poisoned || routed.dropped > 0 || mapping_damaged()) return {};
  if (!s.mask_known()) {
    uint64_t work = std::max<uint64_t>(mask_work_ / batch_.segments.size(), 1);
    if (!s.guide->look_on(&work)) return {};
  }
  router_.count(next - first);
  ++s.held;
  if (!advance(next)) return {};
  return {&s, next, guess_logits_[next], {}};
}

void Step::settle_drafts(size_t first, size_t end) {
  for (size_t i = first; i < end; ++i) {
    if (batch_.guesses[i] != 1) continue;
    Sequence& s = *batch_.owners[i];
    const auto drafted = static_cast<int64_t>(s.draft.size());
    const int64_t held = std::exchange(s.held, 0);
    statistics_->counters().drafted_tokens += static_cast<uint64_t>(drafted);
    statistics_->counters().accepted_tokens += static_cast<uint64_t>(held);
    s.drafter.record(drafted, held);
    s.kv.shrink(s.computed);
  }
}

bool Step::advance(size_t entry) {
  Sequence& s = *batch_.owners[entry];
  const RoutedSegment& routed = batch_.routed[entry];
  if (routed.late && !mapping_damaged()) {
    live_->end(s, FinishReason::kDeadline);
    return false;
  }
  if (routed.poisoned || mapping_damaged()) {
    live_->fail(s, poisoned_status(s, routed));
    return false;
  }
  s.ran(static_cast<int64_t>(batch_.segments[entry].tokens.size()));
  s.dropped += routed.dropped;
  statistics_->counters().dropped_choices += routed.dropped;
  // Computed without an expert that its scope names: not for others to find.
  s.kv_degraded = s.kv_degraded || routed.dropped > 0;
  if (!s.kv_degraded) live_->scheduler().publish_blocks(s);
  return true;
}

void Step::accept(const Sample& sample) {
  Sequence& s = *sample.sequence;
  if (!sample.drawn.failure.ok()) return live_->fail(s, sample.drawn.failure);
  if (sample.drawn.token < 0) return live_->fail(s, bad_values_status(s));
  const auto& eos = backbone_->config().eos_token_ids;
  const bool is_eos = std::find(eos.begin(), eos.end(), sample.drawn.token) != eos.end();
  ++statistics_->counters().generated_tokens;
  const std::optional<Clock::time_point> before =
      s.first_result ? std::optional(s.last_result) : std::nullopt;
  const std::optional<FinishReason> reason = s.accept(sample.drawn, is_eos);
  Latencies& latencies = statistics_->counters().latencies;
  if (before) {
    latencies.inter_token.observe(s.last_result - *before);
  } else {
    latencies.prefill.observe(s.last_result - s.admitted);
    latencies.first_token.observe(s.last_result - s.request.arrived);
  }
  if (reason) live_->end(s, *reason);
}

/// Log-probabilities of the tokens that follow positions `start` on, NaN where a row is not finite.
void Step::score_rows(const Sequence& s, std::span<const float> logits, size_t start) {
  const auto vocab = static_cast<size_t>(backbone_->config().vocab_size);
  const size_t rows = logits.size() / vocab;
  row_logprobs_.assign(rows, 0.0);
  pool_.parallel_for(static_cast<int64_t>(rows), 1, [&](int64_t begin, int64_t end) {
    for (auto r = static_cast<size_t>(begin); r < static_cast<size_t>(end); ++r) {
      const std::span<const float> row = logits.subspan(r * vocab, vocab);
      const size_t next = start + r + 1;
      if (argmax(row) < 0)
        row_logprobs_[r] = std::numeric_limits<double>::quiet_NaN();
      else if (next < s.tokens.size())
        row_logprobs_[r] = token_logprob(row, s.tokens[next]);
    }
  });
}

void Step::take_scores(Sequence& s, std::span<const float> logits) {
  const auto vocab = static_cast<size_t>(backbone_->config().vocab_size);
  const size_t rows = logits.size() / vocab;
  const size_t start = static_cast<size_t>(s.computed) - rows;
  score_rows(s, logits, start);
  for (size_t r = 0; r < rows; ++r) {
    if (row_logprobs_[r] != row_logprobs_[r]) return live_->fail(s, bad_values_status(s));
    if (start + r + 1 == s.tokens.size()) break;  // nothing follows the last token
    s.nats -= row_logprobs_[r];
    s.logprobs.push_back(static_cast<float>(row_logprobs_[r]));
  }
  if (s.logits) {
    s.logits->reserve(s.tokens.size() * vocab);
    s.logits->insert(s.logits->end(), logits.begin(), logits.end());
  }
  if (s.uncomputed() == 0) live_->end(s, FinishReason::kScored);
}

void Step::take_states(Sequence& s, std::span<const float> states) {
  const auto width = static_cast<size_t>(backbone_->config().hidden_size);
  if (!s.pool.add(states, width)) return live_->fail(s, bad_values_status(s));
  if (s.uncomputed() == 0) live_->end(s, FinishReason::kEmbedded);
}

}  // namespace chimera
