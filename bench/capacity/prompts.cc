// capacity --prompts: what long prompts cost those who wait beside them. One client sends prompts
// of
// --long tokens one after another; --clients others stream answers; one sends prompts of eight
// tokens, one after another, and wants one token each.
#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "base/threads/mutex.h"
#include "capacity/capacity.h"
#include "session.h"
#include "stats.h"

namespace chimera::bench {
namespace {

// What the project promises.
constexpr double kMostFirstMs = 250.0;
constexpr double kMostGapBeside = 2.0, kMostGapBesideMs = 50.0;

constexpr int64_t kShortPrompt = 8;

class MixedPrompts {
 public:
  MixedPrompts(const DaemonProcess& daemon, int64_t vocab, int64_t longest)
      : daemon_(daemon), vocab_(vocab), longest_(longest) {}

  /// Streams that run on.
  void stream(uint32_t seed) {
    Session session(daemon_);
    std::vector<double> gaps[2];
    while (!stop_) {
      double last = 0.0;
      const auto on_token = [&](const client::Token&) {
        const double now = now_s();
        const int phase = phase_;
        if (last != 0.0 && phase >= 0) gaps[phase].push_back(1e3 * (now - last));
        last = now;
      };
      seed += 1000;
      note(session.client().generate(greedy_request(prompt_of(kShortPrompt, vocab_, seed), 200),
                                     on_token));
    }
    const MutexLock lock(mutex_);
    for (int phase = 0; phase < 2; ++phase)
      gaps_[phase].insert(gaps_[phase].end(), gaps[phase].begin(), gaps[phase].end());
  }

  /// First tokens of prompts of `length`, one after another, milliseconds by phase.
  void prompts(int64_t length, uint32_t seed, std::vector<double> (&first)[2]) {
    Session session(daemon_);
    while (!stop_) {
      const int phase = phase_;
      if (phase < 0 || (length == longest_ && phase != 1)) {
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
        continue;
      }
      const double begin = now_s();
      note(session.client().generate(greedy_request(prompt_of(length, vocab_, ++seed), 1)));
      if (phase_ == phase) first[phase].push_back(1e3 * (now_s() - begin));
    }
  }

  void enter(int phase) { phase_ = phase; }
  void stop() { stop_ = true; }
  uint64_t failed() const { return failed_; }
  std::vector<double> gaps_ms(int phase) {
    const MutexLock lock(mutex_);
    return gaps_[phase];
  }

 private:
  template <class Done>
  void note(const Done& done) {
    if (!done.ok()) ++failed_;
  }

  const DaemonProcess& daemon_;
  const int64_t vocab_, longest_;
  std::atomic<int> phase_{-1};  // 0: without long prompts, 1: with them
  std::atomic<bool> stop_{false};
  std::atomic<uint64_t> failed_{0};
  Mutex mutex_;
  std::vector<double> gaps_[2] GUARDED_BY(mutex_);
};

}  // namespace

CapacityResult measure_prompts(const CapacityOptions& o) {
  DeploymentOptions deployment = o.deployment;
  deployment.max_sequences = o.clients + 2;
  deployment.max_context = static_cast<int>(o.longest + 8);
  const DaemonProcess daemon(deployment);
  Session session(daemon);
  session.wait_ready(60.0);
  const int64_t context = session.call(wire::Info{}).value("context", o.longest + 8);
  const int64_t longest = std::min(o.longest, context - 8);
  MixedPrompts mixed(daemon, session.vocab(), longest);
  std::vector<double> first[2], of_long[2];
  std::vector<std::thread> threads;
  for (int c = 0; c < o.clients; ++c)
    threads.emplace_back([&, c] { mixed.stream(static_cast<uint32_t>(c)); });
  threads.emplace_back([&] { mixed.prompts(kShortPrompt, 500'000, first); });
  threads.emplace_back([&] { mixed.prompts(longest, 600'000, of_long); });
  const auto wait = [](double s) { std::this_thread::sleep_for(std::chrono::duration<double>(s)); };
  wait(1.0);
  mixed.enter(0);
  wait(o.seconds / 2);
  mixed.enter(1);
  wait(o.seconds);
  mixed.stop();
  for (std::thread& thread : threads) thread.join();

  const auto gap = [&](int phase, double q) { return quantile(mixed.gaps_ms(phase), q); };
  const double short_ms = quantile(first[1], 0.99);
  CapacityResult result;
  result.figures = {
      {"clients", o.clients},
      {"long_tokens", longest},
      {"long_prompts", of_long[1].size()},
      {"long_first_ms", quantile(of_long[1], 0.5)},
      {"short_first_ms",
       {{"quiet", {{"p50", quantile(first[0], 0.5)}, {"p99", quantile(first[0], 0.99)}}},
        {"beside", {{"p50", quantile(first[1], 0.5)}, {"p99", short_ms}}}}},
      {"gap_ms",
       {{"quiet", {{"p50", gap(0, 0.5)}, {"p99", gap(0, 0.99)}}},
        {"beside", {{"p50", gap(1, 0.5)}, {"p99", gap(1, 0.99)}}}}},
      {"failed", mixed.failed()}};
  result.lines = {
      fmt::format("{} prompts of {} tokens, first token after {:.0f} ms (p50)", of_long[1].size(),
                  longest, quantile(of_long[1], 0.5)),
      fmt::format("prompts of {} tokens: first token ms quiet {:.1f} (p99 {:.1f}), beside them "
                  "{:.1f} (p99 {:.1f})",
                  kShortPrompt, quantile(first[0], 0.5), quantile(first[0], 0.99),
                  quantile(first[1], 0.5), short_ms),
      fmt::format("{} streams: inter-token ms quiet {:.2f} (p99 {:.2f}), beside them {:.2f} (p99 "
                  "{:.2f}); {} failed",
                  o.clients, gap(0, 0.5), gap(0, 0.99), gap(1, 0.5), gap(1, 0.99), mixed.failed())};
  result.within = mixed.failed() == 0 && !of_long[1].empty() && short_ms <= kMostFirstMs &&
                  gap(1, 0.99) <= std::max(kMostGapBeside * gap(0, 0.99), kMostGapBesideMs);
  return result;
}

}  // namespace chimera::bench
