// What clients and operators saw of a daemon, and a checker of it that knows nothing of how the
// daemon came to it: every answer is computed once more, alone, by an engine that holds nothing but
// the modules which the request was permitted on the epoch that each of its tokens names.
//
// So equal bits say that the checkpoint is the sum of its parts (design, invariant 1), that a
// masked module is as one never loaded (2), that what else was loaded, swapped, retired, paused or
// batched meanwhile changes nothing (5), and that no prefix of another scope was used (7).
//
// Thread safety: a Recorder from any thread; the rest by the thread of its test.
#pragma once

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "base/threads/mutex.h"
#include "daemon/registry/testing.h"

namespace chimera::testing_support {

/// Numbers what happens, across all threads.
using Clockwork = std::atomic<uint64_t>;

/// What a client saw of its request.
struct Seen {
  struct Token {
    TokenEvent event;
    uint64_t when = 0;
  };
  EngineRequest request;
  std::vector<Token> tokens;
  std::optional<DoneEvent> done;
  std::optional<Status> error;
  int terminals = 0;
  int late_tokens = 0;  // after the end
};

/// A client.
class Recorder final : public EventSink {
 public:
  Recorder(EngineRequest request, Clockwork* clock) : clock_(clock) {
    seen_.request = std::move(request);
  }
  std::function<void(size_t tokens)> on_count;  // on the engine thread, before the token is noted

  void on_token(TokenEvent event) override {
    if (on_count) on_count(count_ + 1);
    const MutexLock lock(mutex_);
    ++count_;
    if (seen_.terminals > 0) ++seen_.late_tokens;
    seen_.tokens.push_back({std::move(event), ++*clock_});
  }
  void on_done(DoneEvent event) override {
    const MutexLock lock(mutex_);
    seen_.done = std::move(event);
    ++seen_.terminals;
    changed_.notify_all();
  }
  void on_error(Status status) override {
    const MutexLock lock(mutex_);
    seen_.error = std::move(status);
    ++seen_.terminals;
    changed_.notify_all();
  }
  bool wait() {
    const MutexLock lock(mutex_);
    return changed_.wait_for(mutex_, kPatience,
                             [this]() REQUIRES(mutex_) { return seen_.terminals > 0; });
  }
  Seen seen() const {
    const MutexLock lock(mutex_);
    return seen_;
  }

 private:
  Clockwork* const clock_;
  size_t count_ = 0;  // of the engine thread
  mutable Mutex mutex_;
  CondVar changed_;
  Seen seen_ GUARDED_BY(mutex_);
};

/// A revocation that was acknowledged at `when`.
struct RevokedAt {
  std::string name;
  uint64_t epoch = 0;
  uint64_t when = 0;
};

struct History {
  std::vector<Seen> requests;
  std::map<uint64_t, Composition> epochs;
  std::vector<RevokedAt> revocations;
};

/// Answers requests alone.
class Oracle {
 public:
  /// `whole`: the composition that is the checkpoint again, by its digest.
  explicit Oracle(std::string whole) : whole_(std::move(whole)), loader_(Fixture::get().loaded()) {}

  /// Of `composition`, what a request with `selection` may use.
  static Composition permitted(const Composition& composition, const ModuleSelection& selection) {
    const auto named = [](const std::vector<std::string>& names, const std::string& name) {
      return std::find(names.begin(), names.end(), name) != names.end();
    };
    Composition out = composition;
    std::erase_if(out.modules, [&](const CompositionModule& module) {
      return !module.enabled || named(selection.exclude, module.name) ||
             (selection.only && !named(*selection.only, module.name));
    });
    return out;
  }

  DoneEvent answer(const Composition& composition, EngineRequest request) {
    request.modules.only.reset();
    request.modules.exclude.clear();
    std::erase_if(request.modules.bias,
                  [&](const auto& bias) { return composition.find(bias.first) == nullptr; });
    // The whole checkpoint has no modules that a request could name.
    const bool whole = composition.digest() == whole_ && request.modules.bias.empty();
    return submit(whole ? the_whole() : engine(composition), std::move(request))->done();
  }

 private:
  static EngineOptions options() {
    EngineOptions options;
    options.max_sequences = 1;
    options.max_context = 128;
    options.prefix_cache = false;
    return options;
  }
  Engine& the_whole() {
    if (whole_engine_ == nullptr) {
      const World world;
      const RoutingTableBuilder builder(world.config, world.whole);
      whole_engine_ =
          must(Engine::create(world.backbone, nullptr, must(builder.build(1, {}, {})), options()));
    }
    return *whole_engine_;
  }
  Engine& engine(const Composition& composition) {
    auto& engine = engines_[composition.digest()];
    if (engine != nullptr) return *engine;
    std::vector<std::shared_ptr<const Module>> modules;
    for (const CompositionModule& module : composition.modules)
      modules.push_back(must(loader_.load(module.path)));
    engine =
        must(Engine::create(Fixture::get().loaded().backbone, nullptr,
                            must(loader_.builder().build(1, composition, modules)), options()));
    return *engine;
  }

  const std::string whole_;
  ModuleLoader loader_;
  std::unique_ptr<Engine> whole_engine_;
  std::map<std::string, std::unique_ptr<Engine>> engines_;
};

/// What is wrong with a history, a line each.
class HistoryChecker {
 public:
  HistoryChecker(const History& history, Oracle* oracle) : history_(history), oracle_(*oracle) {
    for (size_t i = 0; i < history.requests.size(); ++i) {
      label_ = fmt::format("request {}", i);
      check(history.requests[i]);
    }
  }
  const std::vector<std::string>& problems() const { return problems_; }

 private:
  void report(const std::string& what) { problems_.push_back(label_ + ": " + what); }

  void check(const Seen& seen) {
    if (seen.terminals != 1) report(fmt::format("{} ends", seen.terminals));
    if (seen.late_tokens > 0) report(fmt::format("{} tokens after its end", seen.late_tokens));
    if (seen.error) report("failed with " + seen.error->to_string());
    if (!seen.done) return;
    const bool scores = seen.request.kind == EngineRequest::Kind::kScore;
    for (const Seen::Token& token : seen.tokens) {
      if (!known(token.event.epoch)) return;
      check_revoked(seen, token);
    }
    return scores ? check_score(seen) : check_tokens(seen);
  }

  bool known(uint64_t epoch) {
    if (history_.epochs.count(epoch) != 0) return true;
    report(fmt::format("epoch {}, which never was", epoch));
    return false;
  }

  Composition scope_of(const Seen& seen, uint64_t epoch) const {
    return Oracle::permitted(history_.epochs.at(epoch), seen.request.modules);
  }

  void check_revoked(const Seen& seen, const Seen::Token& token) {
    for (const RevokedAt& revoked : history_.revocations) {
      if (token.when < revoked.when || token.event.epoch >= revoked.epoch) continue;
      if (scope_of(seen, token.event.epoch).find(revoked.name) != nullptr)
        report(fmt::format("a token of epoch {} after {} was revoked", token.event.epoch,
                           revoked.name));
    }
  }

  /// Stretches of tokens of the same scope, each with what came before it as its prompt.
  void check_tokens(const Seen& seen) {
    const size_t n = seen.tokens.size();
    std::vector<int32_t> streamed;
    for (const Seen::Token& token : seen.tokens) streamed.push_back(token.event.token);
    if (streamed != seen.done->tokens) report("its answer is not what was streamed");
    if (seen.done->finish_reason == FinishReason::kLength &&
        n != static_cast<size_t>(seen.request.max_tokens))
      report(fmt::format("{} tokens (expected {})", n, seen.request.max_tokens));
    for (size_t begin = 0; begin < n;) {
      const Composition scope = scope_of(seen, seen.tokens[begin].event.epoch);
      const std::string digest = scope.digest();
      size_t end = begin + 1;
      while (end < n && scope_of(seen, seen.tokens[end].event.epoch).digest() == digest) ++end;
      check_stretch(seen, scope, begin, end);
      begin = end;
    }
  }

  void check_stretch(const Seen& seen, const Composition& scope, size_t begin, size_t end) {
    EngineRequest alone = seen.request;
    for (size_t i = 0; i < begin; ++i) alone.tokens.push_back(seen.tokens[i].event.token);
    // What is drawn by a seed goes by the number of the token: only its probability is compared.
    const bool drawn = alone.sampling.temperature != 0 && (begin > 0 || end < seen.tokens.size());
    if (drawn) {
      for (size_t i = begin; i < end; ++i) alone.tokens.push_back(seen.tokens[i].event.token);
      alone.kind = EngineRequest::Kind::kScore;
    }
    alone.max_tokens = static_cast<int64_t>(end - begin);
    const size_t first = drawn ? alone.tokens.size() - (end - begin) - 1 : 0;
    const DoneEvent expected = oracle_.answer(scope, std::move(alone));
    for (size_t i = begin; i < end; ++i) {
      const TokenEvent& token = seen.tokens[i].event;
      const size_t at = first + i - begin;
      const bool same_token = drawn || expected.tokens.at(at) == token.token;
      const float logprob = expected.logprobs.at(at);
      if (same_token && token.logprob &&
          std::memcmp(&*token.logprob, &logprob, sizeof(logprob)) == 0)
        continue;
      return report(
          fmt::format("token {} of epoch {} is not what its modules alone give", i, token.epoch));
    }
  }

  void check_score(const Seen& seen) {
    const DoneEvent& done = *seen.done;
    if (done.finish_reason != FinishReason::kScored) return;
    if (!known(done.epoch)) return;
    const std::string digest = scope_of(seen, done.epoch).digest();
    for (const EpochUse& use : done.epochs) {
      if (!known(use.epoch)) return;
      if (scope_of(seen, use.epoch).digest() != digest) return;  // it was moved in the middle
    }
    const DoneEvent expected = oracle_.answer(scope_of(seen, done.epoch), seen.request);
    const auto bytes = [](const std::vector<float>& v) { return std::as_bytes(std::span(v)); };
    if (!std::ranges::equal(bytes(done.logprobs), bytes(expected.logprobs)) ||
        !std::ranges::equal(bytes(*done.logits), bytes(*expected.logits)))
      report(fmt::format("its logits on epoch {} are not what its modules alone give", done.epoch));
  }

  const History& history_;
  Oracle& oracle_;
  std::string label_;
  std::vector<std::string> problems_;
};

}  // namespace chimera::testing_support
