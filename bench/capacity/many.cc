// capacity --many: what very many modules cost. The modules are --count copies of the first
// --module under names of their own; their weights are links to its weights, so only memory pays
// for them. Beside them run a daemon without any, and one with the first few; all three answer the
// same requests in turn.
//
// The copies have the same gate rows, and of equal scores the first wins: the daemon with the few
// runs the very experts that the one with all of them runs. What an answer takes longer with all of
// them is what they cost beyond experts' work. It stands beside the arithmetic that scoring them
// is: their gate rows times a token, and the choice among the scores, in every layer.
#include <fmt/format.h>

#include <functional>
#include <stdexcept>

#include "capacity/capacity.h"
#include "capacity/gate_arithmetic.h"
#include "copies.h"
#include "session.h"
#include "stats.h"

namespace chimera::bench {
namespace {

// What the project promises of 1,024 modules.
constexpr double kMostPlanMs = 50.0;
constexpr double kMostBiasMs = 20.0;
constexpr double kMostExcluded = 1.01;
constexpr double kMostGate = 1.5;  // of the gate's arithmetic

constexpr size_t kFew = 8;  // modules; a token visits no more of them

constexpr int kManyCalls = 50;         // of plan and of bias
constexpr int kManyRounds = 12;        // of requests to both daemons
constexpr int64_t kAnswerTokens = 96;  // of an answer

Json patient_call(Session& session, const wire::Call& call) {
  auto event = session.client().call(call, std::chrono::minutes(30));
  if (!event.ok()) fail(event.error());
  return event->body;
}

/// Milliseconds of each of kManyCalls calls.
std::vector<double> times_of(Session& session, const std::function<wire::Call(int)>& call) {
  std::vector<double> ms;
  for (int i = 0; i < kManyCalls; ++i) {
    const wire::Call one = call(i);
    const double start = now_s();
    session.call(one);
    ms.push_back(1e3 * (now_s() - start));
  }
  return ms;
}

/// Milliseconds between the tokens of one answer, the first step left out.
double median_gap_ms(Session& session, const wire::Generate& request) {
  std::vector<double> gaps;
  double last = 0.0;
  const auto done = session.client().generate(request, [&](const client::Token&) {
    const double now = now_s();
    if (last != 0.0) gaps.push_back(1e3 * (now - last));
    last = now;
  });
  if (!done.ok()) fail(done.error());
  return quantile(gaps, 0.5);
}

struct Gaps {
  std::vector<double> empty, few, excluding, using_all;  // medians of answers
  std::vector<GateArithmetic::Milliseconds> gate;        // of one token
};

/// In turn, so that what else the machine does meets all of them.
Gaps measure_gaps(Session& empty, Session& few, Session& many,
                  const std::vector<std::string>& names, GateArithmetic& gate) {
  const int64_t vocab = many.vocab();
  Gaps gaps;
  for (int round = 0; round < kManyRounds; ++round) {
    wire::Generate request =
        greedy_request(prompt_of(8, vocab, static_cast<uint32_t>(round)), kAnswerTokens);
    gaps.empty.push_back(median_gap_ms(empty, request));
    gaps.few.push_back(median_gap_ms(few, request));
    gaps.using_all.push_back(median_gap_ms(many, request));
    gaps.gate.push_back(gate.measure());
    request.modules.exclude = names;
    gaps.excluding.push_back(median_gap_ms(many, request));
  }
  return gaps;
}

}  // namespace

CapacityResult measure_many(const CapacityOptions& o) {
  if (o.deployment.modules.empty())
    throw std::runtime_error("--module: found none (expected the module to copy)");
  const Copies copies(o.deployment.modules.front(), o.count, Weights::kLinked);
  const wire::Wish wish{.composition_json = copies.composition()};
  DeploymentOptions bare = o.deployment;
  bare.modules.clear();
  const DaemonProcess empty_daemon(bare), few_daemon(bare), daemon(bare);
  Session empty(empty_daemon), few(few_daemon), many(daemon);
  for (Session* session : {&empty, &few, &many}) session->wait_ready(60.0);
  patient_call(few, wire::Apply{.wish = {.composition_json = copies.composition(
                                             0, std::min(kFew, copies.names().size()))}});

  const double begin = now_s();
  patient_call(many, wire::Apply{.wish = wish});
  const double load_s = now_s() - begin;
  const auto plan_ms = times_of(many, [&](int) { return wire::Plan{.wish = wish}; });
  const auto bias_ms = times_of(many, [&](int i) {
    const size_t which = static_cast<size_t>(i * 131) % copies.names().size();
    return wire::Bias{copies.names()[which], 0.01 * (i + 1)};
  });
  GateArithmetic gate(o.deployment.backbone, o.count, o.deployment.threads);
  const Gaps gaps = measure_gaps(empty, few, many, copies.names(), gate);

  // Of rounds, not of medians: what disturbs one round disturbs both of its answers.
  std::vector<double> excluding, more_ms, gate_ms, choice_ms, to_arithmetic;
  for (size_t i = 0; i < gaps.empty.size(); ++i) {
    const GateArithmetic::Milliseconds& is = gaps.gate[i];
    excluding.push_back(gaps.excluding[i] / gaps.empty[i]);
    more_ms.push_back(gaps.using_all[i] - gaps.few[i]);
    gate_ms.push_back(is.all);
    choice_ms.push_back(is.choice);
    to_arithmetic.push_back(more_ms.back() / is.all);
  }
  const double plan = quantile(plan_ms, 0.5), bias = quantile(bias_ms, 0.5);
  const double ratio = quantile(excluding, 0.5), gate_ratio = quantile(to_arithmetic, 0.5);
  CapacityResult result;
  result.figures = {
      {"modules", o.count},
      {"load_s", load_s},
      {"plan_ms", {{"p50", plan}, {"p99", quantile(plan_ms, 0.99)}}},
      {"bias_ms", {{"p50", bias}, {"p99", quantile(bias_ms, 0.99)}}},
      {"gap_ms",
       {{"empty", quantile(gaps.empty, 0.5)},
        {"few", quantile(gaps.few, 0.5)},
        {"excluding_all", quantile(gaps.excluding, 0.5)},
        {"using_all", quantile(gaps.using_all, 0.5)}}},
      {"gate_ms", {{"all", quantile(gate_ms, 0.5)}, {"choice", quantile(choice_ms, 0.5)}}},
      {"excluding_all_to_empty", ratio},
      {"using_all_beyond_few_to_gate", gate_ratio}};
  result.lines = {
      fmt::format("{} modules loaded by one apply in {:.1f} s", o.count, load_s),
      fmt::format("plan {:.1f} ms (p99 {:.1f}), bias {:.1f} ms (p99 {:.1f})", plan,
                  quantile(plan_ms, 0.99), bias, quantile(bias_ms, 0.99)),
      fmt::format("inter-token ms {:.3f} without modules; a request that excludes all of them "
                  "{:.3f} times as much",
                  quantile(gaps.empty, 0.5), ratio),
      fmt::format(
          "inter-token ms {:.3f} with {} modules, {:.3f} with all: {:.3f} more, {:.2f} times "
          "the gate's arithmetic ({:.3f}, of which choice {:.3f})",
          quantile(gaps.few, 0.5), kFew, quantile(gaps.using_all, 0.5), quantile(more_ms, 0.5),
          gate_ratio, quantile(gate_ms, 0.5), quantile(choice_ms, 0.5))};
  result.within = plan <= kMostPlanMs && bias <= kMostBiasMs && ratio <= kMostExcluded &&
                  gate_ratio <= kMostGate;
  return result;
}

}  // namespace chimera::bench
