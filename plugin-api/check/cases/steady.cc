// Group D, continued: allocations and system calls, cancellation, concurrency, workers.
#include <unistd.h>

#include <algorithm>
#include <atomic>
#include <thread>

#include "check/cases/case.h"
#include "check/instance.h"

namespace chimera::check {
namespace {

constexpr uint64_t kDefaultCancelNs = 10'000'000;
// How late a thread may be woken on a busy machine: not the plugin's doing.
constexpr uint64_t kWakeNs = 10'000'000;

double ms(uint64_t ns) { return static_cast<double>(ns) / 1e6; }

/// Time of the quickest of three full batches.
uint64_t full_time(Instance& instance, const Matrix& x, const Shape& shape) {
  uint64_t best = UINT64_MAX;
  for (int i = 0; i < 3; ++i) {
    const uint64_t begin = monotonic_ns();
    instance.run(x, shape);
    best = std::min(best, monotonic_ns() - begin);
  }
  return best;
}

struct Late {
  uint64_t ns = 0;
  int32_t status = CHIMERA_OK;
};

/// Raises the flag (or lets the deadline pass) after `after` ns; how long forward went on then.
Late late_after(Instance& instance, const Matrix& x, Shape shape, uint64_t after,
                bool by_deadline) {
  uint32_t flag = 0;
  std::atomic<uint64_t> raised{0};
  Batch batch(instance.plugin().descriptor(), x, [&] {
    if (by_deadline) shape.deadline_ns = monotonic_ns() + after;
    if (!by_deadline) shape.cancel = &flag;
    return shape;
  }());
  batch.seal();
  std::thread canceller;
  if (by_deadline) {
    raised = shape.deadline_ns;
  } else {
    canceller = std::thread([&] {
      usleep(static_cast<useconds_t>(after / 1000));
      raised = monotonic_ns();
      __atomic_store_n(&flag, 1u, __ATOMIC_RELAXED);
    });
  }
  Late late;
  late.status = instance.forward(batch.abi());
  const uint64_t end = monotonic_ns();
  if (canceller.joinable()) canceller.join();
  late.ns = end > raised ? end - raised : 0;
  return late;
}

Problem cancelled_in_time(Instance& instance, const Matrix& x, const Shape& shape, uint64_t full,
                          uint64_t allowed, bool by_deadline) {
  const char* what = by_deadline ? "the deadline" : "cancellation";
  Late best{UINT64_MAX, CHIMERA_OK};
  for (int attempt = 0; attempt < 10 && best.ns > allowed; ++attempt) {
    const Late late = late_after(instance, x, shape, full / 8, by_deadline);
    if (late.ns < best.ns) best = late;
  }
  if (best.ns > allowed + kWakeNs) {
    return fail(
        "forward went on for {:.1f} ms after {} (expected {:.1f}; a full batch takes {:.1f}).",
        ms(best.ns), what, ms(allowed), ms(full));
  }
  const int32_t wanted = by_deadline ? CHIMERA_DEADLINE_EXCEEDED : CHIMERA_CANCELLED;
  if (best.status != wanted && best.status != CHIMERA_OK) {
    return fail("after {} forward returned {} (expected {}).", what,
                status_text(best.status, instance.host()), wanted);
  }
  return std::nullopt;
}

/// What the plugin says to a refused parallel_for: an error, or the right output all the same.
Problem refused_parallel(Instance& instance, const Matrix& x, const Shape& shape,
                         const Matrix& want) {
  Host& host = instance.host();
  host.parallel = Parallel::kRefused;
  const Outcome out = instance.run(x, shape);
  host.parallel = Parallel::kInline;
  if (out.status != CHIMERA_OK) return std::nullopt;
  const auto text = difference(instance.plugin().descriptor(), want, out.y);
  if (text.empty()) return std::nullopt;
  return fail("chimera.parallel/1 refused, forward returned ok with wrong output: {}.", text);
}

}  // namespace

Finding check_steady_state(Context& context) {
  if (!allocations_watched()) return skip("not in a sanitizer build of the checker.");
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  const auto& d = plugin.descriptor();
  const uint32_t rows = usable_rows(d, 16);
  Host host(context);
  Instance instance(plugin, host);
  if (auto problem = instance.start(rows)) return *problem;
  std::vector<std::unique_ptr<Batch>> batches;
  for (const Shape& shape : some_experts(context, d)) {
    for (const uint32_t n : {1u, rows}) {
      batches.push_back(std::make_unique<Batch>(d, random_rows(context, n, d.d_model), shape));
    }
  }
  const auto all = [&] {
    int32_t worst = CHIMERA_OK;
    for (const auto& batch : batches) worst = std::max(worst, instance.forward(batch->abi()));
    return worst;
  };
  for (int i = 0; i < 5; ++i) {
    if (all() != CHIMERA_OK) return skip("forward failed, see case 26.");
  }
  const uint64_t before = plugin_allocations();
  for (int i = 0; i < 20; ++i) all();
  const uint64_t made = plugin_allocations() - before;
  if (made != 0) {
    return fail("{} allocations in {} warm calls of forward (expected none).", made,
                20 * batches.size());
  }
  if (auto problem = forbid_system_calls(context); !problem.empty()) return skip("{}.", problem);
  for (int i = 0; i < 20; ++i) all();
  conclude(context.board, Verdict::kPass,
           "no allocation and no system call in warm calls of forward.");
}

Finding check_cancel(Context& context) {
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  const auto& d = plugin.descriptor();
  const uint32_t rows = usable_rows(d, UINT32_MAX);
  const uint64_t allowed = d.cancel_latency_ns == 0 ? kDefaultCancelNs : d.cancel_latency_ns;
  Host host(context);
  Instance instance(plugin, host);
  if (auto problem = instance.start(rows)) return *problem;
  const Matrix x = random_rows(context, rows, d.d_model);
  const Shape shape = some_experts(context, d).front();
  if (instance.run(x, shape).status != CHIMERA_OK) return skip("forward failed, see case 26.");
  const uint64_t full = full_time(instance, x, shape);
  uint32_t flag = 1;
  Shape cancelled = shape;
  cancelled.cancel = &flag;
  const int32_t status = instance.run(x, cancelled).status;
  if (status != CHIMERA_OK && status != CHIMERA_CANCELLED) {
    return fail("cancelled before it began, forward returned {} (expected 8, cancelled).",
                status_text(status, host));
  }
  if (full <= allowed) {
    return pass("the largest batch tried, {} rows, takes {:.1f} ms, within {:.1f} ms anyway.", rows,
                ms(full), ms(allowed));
  }
  for (const bool by_deadline : {false, true}) {
    if (auto p = cancelled_in_time(instance, x, shape, full, allowed, by_deadline)) return *p;
  }
  return pass("a batch of {:.1f} ms ends within {:.1f} ms of cancellation and of its deadline.",
              ms(full), ms(allowed));
}

Finding check_concurrency(Context& context) {
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  const auto& d = plugin.descriptor();
  if (d.concurrency != CHIMERA_CONCURRENCY_REENTRANT) {
    return skip(
        "it is of the serial class: that the host never overlaps its calls is tested there.");
  }
  constexpr uint32_t kThreads = 8;
  const uint32_t rows = usable_rows(d, 8);
  Host host(context);
  Instance instance(plugin, host);
  if (auto problem = instance.start(rows, 4, kThreads)) return *problem;
  const auto experts = some_experts(context, d);
  std::vector<Matrix> want;
  std::vector<std::unique_ptr<Batch>> batches;
  for (uint32_t t = 0; t < kThreads; ++t) {
    const Shape& shape = experts[t % experts.size()];
    const Matrix x = random_rows(context, rows, d.d_model);
    want.push_back(instance.run(x, shape).y);
    batches.push_back(std::make_unique<Batch>(d, x, shape));
  }
  const int rounds = context.amount(0, 20, 200, 2000);
  std::vector<std::string> wrong(kThreads);
  std::vector<std::thread> threads;
  std::atomic<uint32_t> ready{0};
  for (uint32_t t = 0; t < kThreads; ++t) {
    threads.emplace_back([&, t] {
      ready.fetch_add(1);
      while (ready.load() < kThreads) std::this_thread::yield();
      for (int i = 0; i < rounds && wrong[t].empty(); ++i) {
        const int32_t status = instance.forward(batches[t]->abi());
        wrong[t] = status != CHIMERA_OK ? fmt::format("forward returned status {}", status)
                                        : difference(d, want[t], batches[t]->y());
      }
    });
  }
  for (auto& t : threads) t.join();
  for (const std::string& text : wrong) {
    if (!text.empty()) return fail("with {} threads at once: {}.", kThreads, text);
  }
  return pass("{} threads, {} calls each at once, the outputs of single calls.", kThreads, rounds);
}

Finding check_parallel(Context& context) {
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  const auto& d = plugin.descriptor();
  const uint32_t rows = usable_rows(d, 32);
  Host host(context);
  Instance instance(plugin, host);
  if (auto problem = instance.start(rows)) return *problem;
  for (const Shape& base : some_experts(context, d)) {
    const Matrix x = random_rows(context, rows, d.d_model);
    Shape shape = base;
    const Outcome want = instance.run(x, shape);
    if (want.status != CHIMERA_OK) return skip("forward failed, see case 26.");
    shape.workers = 4;
    for (const auto& [way, name] :
         {std::pair{Parallel::kInline, "all on the calling thread"},
          std::pair{Parallel::kReversed, "in reverse order as the last worker"},
          std::pair{Parallel::kThreads, "on four threads"}}) {
      host.parallel = way;
      const Outcome got = instance.run(x, shape);
      if (got.status != CHIMERA_OK)
        return fail("bodies {}: {}.", name, status_text(got.status, host));
      if (auto text = difference(d, want.y, got.y); !text.empty()) {
        return fail("bodies {} give other outputs: {}.", name, text);
      }
    }
    if (auto problem = refused_parallel(instance, x, shape, want.y)) return *problem;
  }
  if (host.accounts().parallel_runs == 0) return skip("it does not use chimera.parallel/1.");
  return pass("one worker, inline, reversed, four threads and refused.");
}

}  // namespace chimera::check
