// swap: does changing modules disturb the streams?
//
// N clients stream greedy answers all the time. Quiet and swapping phases alternate, so that a
// drift of the machine meets both; in a swapping phase a control client loads one of the given
// modules, puts the next in its place (apply) and unloads that, at a fixed rate. The quiet phases
// are in those three states in turn, as one expert more slows a small model down with or without
// changes. With --resident the modules stay loaded and are switched on and off: what is
// left is the cost of streams on several compositions at a time. With --blend a module of kind
// assembly, among those that the deployment starts with, gets other coefficients instead.
//
// Reported: time between two tokens of one stream, ms, p50 and p99, of both kinds of phase, and
// their ratio, over all phases and by pairs; CPU time that other guests of the machine took;
// requests failed; changes made and how long they took.
#include <fmt/format.h>

#include <atomic>
#include <exception>
#include <filesystem>
#include <random>
#include <thread>

#include "base/json/writer.h"
#include "base/threads/mutex.h"
#include "bench.h"
#include "options.h"
#include "session.h"
#include "stats.h"

namespace chimera::bench {
namespace {

struct SwapOptions {
  DeploymentOptions deployment;
  std::vector<std::string> swapped;
  int clients = 16;
  double changes_per_second = 8.0;
  double seconds = 60.0;
  int pairs = 6;          // of a quiet and a swapping phase
  bool resident = false;  // modules stay loaded, and are switched on and off
  std::string blend;      // name of a module of kind assembly; empty: none is blended
  std::string parent;     // of it, whose coefficient changes
};

// Answers of 16 to 48 tokens, as even streams fall into step with one another: then whole groups
// start at once, and the tail tells how they happened to group.
constexpr int64_t kLeastTokens = 16, kMoreTokens = 33;

// Phases are numbered: even ones are quiet, odd ones swapping, and neighbours are compared.
constexpr int kWarmUp = -1, kStop = 1 << 20;

struct Shared {
  explicit Shared(int pairs) : gaps_ms(2 * static_cast<size_t>(pairs)), stolen(gaps_ms.size()) {}
  std::atomic<int> phase{kWarmUp};
  std::atomic<uint64_t> requests{0}, failed{0};
  Mutex mutex;
  std::vector<std::vector<double>> gaps_ms;  // [phases], guarded by mutex while clients run
  std::vector<double> stolen;                // [phases] share of CPU time that other guests took
  std::vector<double> change_ms;             // of swapping phases, from the call to its answer
  std::string first_error;                   // likewise
};

void stream(const DaemonProcess& daemon, uint32_t seed, int64_t vocab, Shared& shared) {
  Session session(daemon);
  std::mt19937 random(seed);
  std::vector<std::vector<double>> gaps(shared.gaps_ms.size());
  for (uint32_t n = 0; shared.phase != kStop; ++n) {
    double last = 0.0;
    const auto on_token = [&](const client::Token&) {
      const double now = now_s();
      const int phase = shared.phase;
      if (last != 0.0 && phase != kWarmUp && phase != kStop)
        gaps[static_cast<size_t>(phase)].push_back(1e3 * (now - last));
      last = now;
    };
    const int64_t length = kLeastTokens + static_cast<int64_t>(random()) % kMoreTokens;
    const auto done = session.client().generate(
        greedy_request(prompt_of(8, vocab, 1000 * seed + n), length), on_token);
    ++shared.requests;
    if (done.ok() && done->finish_reason == "length") continue;
    ++shared.failed;
    const MutexLock lock(shared.mutex);
    if (shared.first_error.empty())
      shared.first_error = done.ok() ? "ended by " + done->finish_reason : done.error().message;
  }
  const MutexLock lock(shared.mutex);
  for (size_t i = 0; i < gaps.size(); ++i)
    shared.gaps_ms[i].insert(shared.gaps_ms[i].end(), gaps[i].begin(), gaps[i].end());
}

/// The three states that a deployment goes through: load one module, put another in its place,
/// unload that; or three coefficients of a blend.
class Changer {
 public:
  Changer(Session& control, const SwapOptions& o) : control_(control), o_(o) {}

  static constexpr int kStates = 3;
  int state() const { return state_; }

  void change() {
    if (!o_.blend.empty()) {
      count(control_.call(wire::Blend{o_.blend, {{o_.parent, kBlends[state_]}}}));
      state_ = (state_ + 1) % kStates;
      return;
    }
    const std::string& next = o_.swapped[which_];
    if (o_.resident)
      count(control_.call(wire::Apply{
          {.composition_json = composition_with_only(state_ == 2 ? "" : next)}, false}));
    else if (state_ == 0)
      adopt(control_.call(wire::Load{next, {}, {}, {}, {}, false}));
    else if (state_ == 1)
      adopt(control_.call(wire::Apply{{.composition_json = composition_with(next)}, false}));
    else
      count(control_.call(wire::Unload{loaded_}));
    if (state_ != 2) which_ = (which_ + 1) % o_.swapped.size();
    state_ = (state_ + 1) % kStates;
  }

 private:
  static constexpr double kBlends[kStates] = {0.3, 0.5, 0.7};

  /// Only what took place counts.
  const Json& count(const Json& report) {
    if (report["changes"].empty())
      throw std::runtime_error(
          "found a change without effect (expected --swap to name two or more "
          "modules that differ, or --blend a module whose parents do)");
    return report;
  }

  void adopt(const Json& report) {
    for (const auto& item : count(report)["changes"])
      if (item["action"] == "load") loaded_ = item.value("module", "");
  }

  /// What the deployment started with.
  Json started_with() const {
    Json modules = Json::array();
    for (const std::string& path : o_.deployment.modules) modules.push_back({{"path", path}});
    return modules;
  }

  /// The module in `path` besides.
  std::string composition_with(const std::string& path) const {
    Json modules = started_with();
    modules.push_back({{"path", path}});
    return write_json({{"modules", std::move(modules)}});
  }

  /// All that are swapped besides, of which only the one in `path` is switched on.
  std::string composition_with_only(const std::string& path) const {
    Json modules = started_with();
    for (const std::string& swapped : o_.swapped)
      modules.push_back({{"path", swapped}, {"enabled", swapped == path}});
    return write_json({{"modules", std::move(modules)}});
  }

  Session& control_;
  const SwapOptions& o_;
  std::string loaded_;  // name of the module that comes and goes
  int state_ = 0;       // 0: none is there; 1: one was loaded; 2: another in its place
  size_t which_ = 0;
};

void swapping_phase(Shared& shared, Changer& changer, const SwapOptions& o, double seconds) {
  const double begin = now_s();
  for (int n = 1; now_s() - begin < seconds; ++n) {
    const double start = now_s();
    changer.change();
    shared.change_ms.push_back(1e3 * (now_s() - start));
    const double next = begin + n / o.changes_per_second;
    if (next > now_s()) std::this_thread::sleep_for(std::chrono::duration<double>(next - now_s()));
  }
}

/// Each quiet phase is in the next of the states, so that what it costs to have one expert more is
/// on both sides; the streams of the state before end first.
void prepare_quiet(Shared& shared, Changer& changer, int pair) {
  shared.phase = kWarmUp;
  while (changer.state() != pair % Changer::kStates) changer.change();
  std::this_thread::sleep_for(std::chrono::seconds(1));
}

/// All gaps of the quiet or of the swapping phases.
std::vector<double> gaps_of(const Shared& shared, bool swapping) {
  std::vector<double> all;
  for (size_t i = swapping ? 1 : 0; i < shared.gaps_ms.size(); i += 2)
    all.insert(all.end(), shared.gaps_ms[i].begin(), shared.gaps_ms[i].end());
  return all;
}

void report_kind(const Shared& shared, bool swapping) {
  const std::vector<double> gaps = gaps_of(shared, swapping);
  double stolen = 0.0;
  for (size_t i = swapping ? 1 : 0; i < shared.stolen.size(); i += 2) stolen += shared.stolen[i];
  fmt::print("{:<10}{:>10}{:>10.3f}{:>10.3f}{:>9.1f} %\n", swapping ? "swapping" : "quiet",
             gaps.size(), quantile(gaps, 0.50), quantile(gaps, 0.99),
             200.0 * stolen / static_cast<double>(shared.stolen.size()));
}

/// The ratios of neighbouring phases at quantile `q`.
Spread pair_ratios(const Shared& shared, double q) {
  std::vector<double> ratios;
  for (size_t i = 0; i + 1 < shared.gaps_ms.size(); i += 2)
    ratios.push_back(quantile(shared.gaps_ms[i + 1], q) / quantile(shared.gaps_ms[i], q));
  return spread(ratios);
}

void report(const SwapOptions& o, const Shared& shared) {
  fmt::print("{:<10}{:>10}{:>10}{:>10}{:>11}\n", "", "tokens", "p50 ms", "p99 ms", "stolen");
  report_kind(shared, false);
  report_kind(shared, true);
  const std::vector<double> quiet = gaps_of(shared, false), swapping = gaps_of(shared, true);
  fmt::print("{:<20}{:>9.2f}x{:>9.2f}x\n", "ratio",
             quantile(swapping, 0.50) / quantile(quiet, 0.50),
             quantile(swapping, 0.99) / quantile(quiet, 0.99));
  const Spread p50 = pair_ratios(shared, 0.50), p99 = pair_ratios(shared, 0.99);
  fmt::print("{} pairs of phases: p50 {:.2f}x ({:.2f} to {:.2f}), p99 {:.2f}x ({:.2f} to {:.2f})\n",
             o.pairs, p50.median, p50.min, p50.max, p99.median, p99.min, p99.max);
  const std::vector<double>& changes = shared.change_ms;
  fmt::print("{} clients, {} requests, {} failed\n", o.clients, shared.requests.load(),
             shared.failed.load());
  fmt::print("{} changes in {:.0f} s of swapping ({:.1f}/s), answered in {:.0f} ms (p99 {:.0f})\n",
             changes.size(), o.seconds, static_cast<double>(changes.size()) / o.seconds,
             quantile(changes, 0.50), quantile(changes, 0.99));
  if (!shared.first_error.empty()) fmt::print("first failure: {}\n", shared.first_error);
}

void run_pair(Shared& shared, Changer& changer, const SwapOptions& o, int pair) {
  const double seconds = o.seconds / o.pairs;
  const auto quiet = 2 * static_cast<size_t>(pair);
  prepare_quiet(shared, changer, pair);
  const CpuTimes start = CpuTimes::read();
  shared.phase = 2 * pair;
  std::this_thread::sleep_for(std::chrono::duration<double>(seconds));
  const CpuTimes middle = CpuTimes::read();
  shared.phase = 2 * pair + 1;
  swapping_phase(shared, changer, o, seconds);
  shared.stolen[quiet] = middle.stolen_since(start);
  shared.stolen[quiet + 1] = CpuTimes::read().stolen_since(middle);
}

int run(const SwapOptions& o) {
  const DaemonProcess daemon(o.deployment);
  Session control(daemon);
  control.wait_ready(60.0);
  const int64_t vocab = control.vocab();
  Shared shared(o.pairs);
  std::vector<std::thread> threads;
  for (int c = 0; c < o.clients; ++c)
    threads.emplace_back([&, c] { stream(daemon, static_cast<uint32_t>(c), vocab, shared); });

  Changer changer(control, o);
  std::string error;
  try {
    for (int pair = 0; pair < o.pairs; ++pair) run_pair(shared, changer, o, pair);
  } catch (const std::exception& e) {
    error = e.what();
  }
  shared.phase = kStop;
  for (std::thread& t : threads) t.join();
  if (!error.empty()) throw std::runtime_error(error);
  report(o, shared);
  return shared.failed == 0 ? 0 : 1;
}

}  // namespace

int run_swap(const std::vector<std::string>& args) {
  namespace po = boost::program_options;
  SwapOptions o;
  auto description = daemon_options(o.deployment);
  description.add_options()("swap", po::value(&o.swapped)->composing(),
                            "module directory to load and unload, repeatable");
  description.add_options()("clients", po::value(&o.clients)->default_value(16),
                            "streaming clients");
  description.add_options()("rate", po::value(&o.changes_per_second)->default_value(8.0),
                            "changes per second");
  description.add_options()("seconds", po::value(&o.seconds)->default_value(60.0),
                            "length of all swapping phases together");
  description.add_options()("resident", po::bool_switch(&o.resident),
                            "load nothing; switch modules on and off");
  description.add_options()("blend", po::value(&o.blend),
                            "module of kind assembly to blend instead of loading any");
  description.add_options()("parent", po::value(&o.parent), "of it, whose coefficient changes");
  if (const auto exit = parse(description, args)) return *exit;
  if (o.blend.empty() != o.parent.empty() || (!o.blend.empty() && !o.swapped.empty())) {
    fmt::print(stderr, "chimera-bench: --blend: expected --parent with it, and no --swap\n");
    return 2;
  }
  if (o.blend.empty() && o.swapped.size() < 2) {
    fmt::print(stderr, "chimera-bench: --swap: found one module (expected two or more)\n");
    return 2;
  }
  o.deployment.max_sequences = o.clients;
  for (std::vector<std::string>* paths : {&o.swapped, &o.deployment.modules})
    for (std::string& path : *paths) path = std::filesystem::absolute(path).string();
  try {
    return run(o);
  } catch (const std::exception& error) {
    fmt::print(stderr, "chimera-bench: swap: {}\n", error.what());
    return 1;
  }
}

}  // namespace chimera::bench
