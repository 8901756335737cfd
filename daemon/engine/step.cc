// One step: a forward pass over the batch, then one sampled token (or scored rows) per sequence.
#include <algorithm>
#include <limits>
#include <utility>

#include <fmt/format.h>

#include "base/io/mapping_guard.h"
#include "daemon/engine/impl.h"

namespace chimera {

void Engine::Impl::step() {
  const Clock::time_point begin = Clock::now();
  scheduler.build(live, batch);
  const size_t count = batch.segments.size();
  const Status status = forward(0, count);
  if (status.ok()) {
    take_results(0, count);
  } else {
    // Somebody in the batch made the whole pass fail. Alone, every other sequence gives the very
    // same bits (the kernels are batch invariant), so only the culprit is lost.
    for (size_t i = 0; i < count; ++i) {
      Status alone = count == 1 ? status : forward(i, 1);
      if (alone.ok())
        take_results(i, 1);
      else
        fail(*batch.owners[i], alone.with_context("forward pass"));
    }
  }
  batch.clear();
  ++counters.steps;
  record_step(std::chrono::duration<double, std::milli>(Clock::now() - begin).count());
  // With ends to report, flush_endings refreshes the snapshot itself.
  if (endings.empty())
    refresh_snapshot();
  else
    flush_endings();
}

Status Engine::Impl::forward(size_t first, size_t count) {
  router.begin_pass(std::span(batch.routed).subspan(first, count), &router_stats);
  return backbone->forward(std::span(batch.segments).subspan(first, count), router, kernels, pool,
                           workspace);
}

/// Advances the sequences of batch entries [first, first + count), whose logits are in the
/// workspace, and ends those that are complete.
void Engine::Impl::take_results(size_t first, size_t count) {
  const auto vocab = static_cast<size_t>(backbone->config().vocab_size);
  const float* logits = workspace.logits.data();
  samples.clear();
  for (size_t i = first; i < first + count; ++i) {
    Sequence& s = *batch.owners[i];
    const auto rows = static_cast<size_t>(batch.logit_rows(i));
    const float* own = logits;
    logits += rows * vocab;
    if (batch.routed[i].late && !mapping_damaged()) {
      end(s, "deadline");
      continue;
    }
    if (batch.routed[i].poisoned || mapping_damaged()) {
      fail(s, poisoned_status(s, batch.routed[i]));
      continue;
    }
    s.ran(static_cast<int64_t>(batch.segments[i].tokens.size()));
    s.dropped += batch.routed[i].dropped;
    counters.dropped_choices += batch.routed[i].dropped;
    // Computed without an expert that its scope names: not for others to find.
    s.kv_degraded = s.kv_degraded || batch.routed[i].dropped > 0;
    if (!s.kv_degraded) scheduler.publish_blocks(s);
    if (s.scoring())
      take_scores(s, {own, rows * vocab});
    else if (rows > 0)
      samples.push_back({&s, {own, vocab}, -1, 0.0});
  }
  pool.parallel_for(static_cast<int64_t>(samples.size()), 1, [&](int64_t begin, int64_t end_at) {
    for (int64_t i = begin; i < end_at; ++i) draw(samples[static_cast<size_t>(i)]);
  });
  for (const Sample& sample : samples) accept(sample);
}

Status Engine::Impl::poisoned_status(const Sequence& sequence, const RoutedSegment& routed) const {
  if (mapping_damaged()) {
    return {Code::kDataCorrupt, damaged_mapping() + ": shrank while the daemon was using it",
            "restart the daemon with intact weights, and put new ones in place by renaming"};
  }
  if (!routed.failure.ok()) return routed.failure;
  return {Code::kDataCorrupt,
          fmt::format("an expert of epoch {} gave a value that is not finite",
                      sequence.view->table->epoch()),
          "exclude the module by modules.exclude, and have its owner check it"};
}

void Engine::Impl::draw(Sample& sample) {
  Sequence& s = *sample.sequence;
  sample.token = s.sampler.sample(sample.logits, static_cast<uint64_t>(s.generated()));
  if (sample.token >= 0 && s.request.want_logprobs)
    sample.logprob = token_logprob(sample.logits, sample.token);
}

void Engine::Impl::accept(const Sample& sample) {
  Sequence& s = *sample.sequence;
  if (sample.token < 0) return fail(s, bad_logits_status(s));
  const auto& eos = backbone->config().eos_token_ids;
  const bool is_eos = std::find(eos.begin(), eos.end(), sample.token) != eos.end();
  ++counters.generated_tokens;
  const std::string reason = s.accept(sample.token, static_cast<float>(sample.logprob), is_eos);
  if (!reason.empty()) end(s, reason);
}

Status Engine::Impl::bad_logits_status(const Sequence& sequence) const {
  return {Code::kDataCorrupt,
          fmt::format("the logits after {} tokens on epoch {} are not finite", sequence.computed,
                      sequence.epoch),
          "check the checkpoint and the modules the request permits"};
}

/// `logits`: the rows of the positions that just ran, [rows, vocab].
void Engine::Impl::take_scores(Sequence& s, std::span<const float> logits) {
  const auto vocab = static_cast<size_t>(backbone->config().vocab_size);
  const size_t rows = logits.size() / vocab;
  const size_t start = static_cast<size_t>(s.computed) - rows;
  row_logprobs.assign(rows, 0.0);
  pool.parallel_for(static_cast<int64_t>(rows), 1, [&](int64_t begin, int64_t end_at) {
    for (auto r = static_cast<size_t>(begin); r < static_cast<size_t>(end_at); ++r) {
      const std::span<const float> row = logits.subspan(r * vocab, vocab);
      const size_t next = start + r + 1;
      if (argmax(row) < 0)
        row_logprobs[r] = std::numeric_limits<double>::quiet_NaN();
      else if (next < s.tokens.size())
        row_logprobs[r] = token_logprob(row, s.tokens[next]);
    }
  });
  for (size_t r = 0; r < rows; ++r) {
    if (row_logprobs[r] != row_logprobs[r]) return fail(s, bad_logits_status(s));
    if (start + r + 1 == s.tokens.size()) break;  // nothing follows the last token
    s.nats -= row_logprobs[r];
    s.logprobs.push_back(static_cast<float>(row_logprobs[r]));
  }
  if (s.logits) {
    s.logits->reserve(s.tokens.size() * vocab);
    s.logits->insert(s.logits->end(), logits.begin(), logits.end());
  }
  if (s.uncomputed() == 0) end(s, "scored");
}

void Engine::Impl::record_step(double ms) {
  const std::lock_guard lock(mutex);
  if (step_ms.size() < kStepWindow)
    step_ms.push_back(static_cast<float>(ms));
  else
    step_ms[step_ms_next++ % kStepWindow] = static_cast<float>(ms);
}

}  // namespace chimera
