// Group E: what goes wrong around the plugin.
#include <sys/stat.h>

#include <algorithm>
#include <cmath>

#include "check/cases/case.h"
#include "check/instance.h"

namespace chimera::check {
namespace {

bool status_known(int32_t status) { return status >= CHIMERA_OK && status <= CHIMERA_INTERNAL; }

/// prepare and activate; the first status that is not ok.
int32_t bring_up(Instance& instance, uint32_t rows) {
  const int32_t status = instance.prepare();
  return status != CHIMERA_OK ? status : instance.activate(rows);
}

/// One life with the nth host allocation failing.
Problem with_failing_allocation(Plugin& plugin, uint64_t nth, const Matrix& x, const Shape& shape,
                                const Matrix& want) {
  Host host(plugin.context());
  host.fail_allocation = nth;
  Instance instance(plugin, host);
  if (!instance.create()) return std::nullopt;
  int32_t status = instance.prepare();
  const uint64_t before = host.accounts().used_bytes;
  if (status == CHIMERA_OK) {
    status = instance.activate(x.rows);
    const uint64_t left = host.accounts().used_bytes;
    if (status != CHIMERA_OK && left != before) {
      return fail("allocation {} failed, activate returned {} and kept {} bytes.", nth, status,
                  left - before);
    }
  }
  if (status == CHIMERA_OK) {
    const Outcome out = instance.run(x, shape);
    if (out.status == CHIMERA_OK) {
      if (auto text = difference(plugin.descriptor(), want, out.y); !text.empty()) {
        return fail("allocation {} failed, nothing reported it and the output is wrong: {}.", nth,
                    text);
      }
    }
  } else if (!status_known(status)) {
    return fail("allocation {} failed and status {} came back (expected one of the ABI).", nth,
                status);
  }
  instance.destroy();
  if (const auto a = host.accounts(); a.blocks != 0) {
    return fail("allocation {} failed; {} bytes left after destroy.", nth, a.used_bytes);
  }
  return std::nullopt;
}

/// Numbers 1 … total, at most `most` of them: the first and a spread of the others.
std::vector<uint64_t> spread(uint64_t total, uint64_t most) {
  std::vector<uint64_t> out;
  for (uint64_t i = 0; i < std::min(total, most); ++i) {
    out.push_back(total <= most || i < most / 2
                      ? i + 1
                      : most / 2 + 1 + (i - most / 2) * (total - most / 2) / (most - most / 2));
  }
  return out;
}

constexpr std::pair<TensorFault, const char*> kFaults[] = {
    {TensorFault::kMissing, "missing"},
    {TensorFault::kShort, "cut"},
    {TensorFault::kDtype, "of another dtype"}};

/// One life with a wrong tensor. `optional` counts tensors that it can do without.
Problem with_bad_tensor(Plugin& plugin, const std::string& name, TensorFault fault,
                        const char* what, const Matrix& x, const Shape& shape, uint64_t& optional) {
  Host host(plugin.context());
  host.bad_tensor = name;
  host.tensor_fault = fault;
  Instance instance(plugin, host);
  if (!instance.create()) return std::nullopt;
  const int32_t status = bring_up(instance, x.rows);
  if (status == CHIMERA_OK && fault != TensorFault::kMissing) {
    return fail("tensor {} is {} and prepare and activate return ok.", name, what);
  }
  if (status == CHIMERA_OK) {
    ++optional;
    instance.run(x, shape);  // must not crash
  }
  instance.destroy();
  if (host.accounts().blocks != 0) return fail("tensor {} is {}: memory is left.", name, what);
  return std::nullopt;
}

/// A text from `base` by a few random edits, or random bytes.
std::string mutated(std::mt19937_64& random, const std::string& base) {
  const auto below = [&](uint64_t n) { return random() % n; };
  std::string text = base;
  if (below(4) == 0) {
    text.resize(below(5000));
    for (char& c : text) c = static_cast<char>(below(256));
    return text;
  }
  static const std::string kPieces[] = {"{",
                                        "[[[[",
                                        "\"",
                                        ": ",
                                        "\n",
                                        "-1",
                                        "1e999",
                                        "nan",
                                        "99999999999999999999",
                                        std::string(1, '\0'),
                                        "\xc3\x28",
                                        "%s%n",
                                        "../../",
                                        "true"};
  for (uint64_t edits = 1 + below(8); edits > 0; --edits) {
    const size_t at = text.empty() ? 0 : below(text.size() + 1);
    switch (below(4)) {
      case 0:
        text.insert(at, kPieces[below(std::size(kPieces))]);
        break;
      case 1:
        text.erase(at, below(8));
        break;
      case 2:
        if (at < text.size()) text[at] = static_cast<char>(below(256));
        break;
      default:
        text += text.substr(0, at);
        break;
    }
  }
  return below(16) == 0 ? text + std::string(1 << 20, 'a') : text.substr(0, 1 << 16);
}

/// A whole life that provokes errors; exceptions are counted by guarded_call.
void provoke(Plugin& plugin, const Matrix& x, const Shape& shape) {
  Host host(plugin.context());
  Instance instance(plugin, host);
  if (!instance.create() || bring_up(instance, x.rows) != CHIMERA_OK) return;
  instance.run(x, shape);
  Shape wrong = shape;
  wrong.layer = UINT32_MAX;
  instance.run(x, wrong);
  instance.run(random_rows(plugin.context(), x.rows + 1, x.cols), shape);
  host.parallel = Parallel::kRefused;
  instance.run(x, shape);
  host.parallel = Parallel::kInline;
  const uint32_t cancelled = 1;
  wrong = shape;
  wrong.cancel = &cancelled;
  instance.run(x, wrong);
  instance.reset();
  guarded_call(plugin.context(), "get_extension", [&] {
    instance.abi()->get_extension(instance.abi(), "no.such.extension/1");
    return CHIMERA_OK;
  });
}

/// Lives in which the heap runs out at every point; how many points there were.
uint64_t exhaust_heap(Plugin& plugin, const Matrix& x, const Shape& shape) {
  Context& context = plugin.context();
  const uint64_t before = plugin_allocations();
  provoke(plugin, x, shape);
  const uint64_t total = plugin_allocations() - before;
  for (const bool from_then_on : {false, true}) {
    for (const uint64_t nth : spread(total, context.amount<uint64_t>(0, 40, 200, 2000))) {
      fail_plugin_allocation(nth, from_then_on);
      provoke(plugin, x, shape);
      fail_plugin_allocation(0);
      if (!context.exceptions.empty() || context.late()) return total;
    }
  }
  return total;
}

uint64_t bytes_printed(const Context& context) {
  struct stat output = {};
  return fstat(context.output_fd, &output) == 0 ? static_cast<uint64_t>(output.st_size) : 0;
}

}  // namespace

Finding check_allocation_failure(Context& context) {
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  const auto& d = plugin.descriptor();
  const Matrix x = random_rows(context, usable_rows(d, 3), d.d_model);
  const Shape shape = some_experts(context, d).front();
  Matrix want;
  uint64_t total = 0;
  {
    Host host(context);
    Instance instance(plugin, host);
    if (auto problem = instance.start(x.rows)) return *problem;
    want = instance.run(x, shape).y;
    instance.destroy();
    const auto a = host.accounts();
    total = a.allocations;
    if (a.blocks != 0) return fail("{} bytes of host memory left after destroy.", a.used_bytes);
  }
  if (total == 0) return skip("it takes no memory from the host.");
  const auto points = spread(total, context.amount<uint64_t>(0, 50, 500, 5000));
  uint64_t tried = 0;
  for (const uint64_t nth : points) {
    if (context.late()) break;
    ++tried;
    if (auto problem = with_failing_allocation(plugin, nth, x, shape, want)) return *problem;
  }
  return pass("{} of {} host allocations failed in turn and were endured.", tried, total);
}

Finding check_bad_tensors(Context& context) {
  const Subject& subject = context.subject;
  if (!subject.tensor_problem.empty()) return fail("{}.", subject.tensor_problem);
  if (subject.tensor_files.empty())
    return skip("no module with tensors other than gate rows was given.");
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  const auto& d = plugin.descriptor();
  const Matrix x = random_rows(context, usable_rows(d, 3), d.d_model);
  const Shape shape = some_experts(context, d).front();
  std::set<std::string> used;
  {
    Host host(context);
    Instance instance(plugin, host);
    if (auto problem = instance.start(x.rows)) return *problem;
    used = host.accounts().tensors;
  }
  if (used.empty()) return skip("it reads none of the module's tensors.");
  uint64_t optional = 0, tried = 0;
  const uint64_t most = context.amount<uint64_t>(0, 6, 24, 1000);
  for (const std::string& name : used) {
    if (tried == most || context.late()) break;
    ++tried;
    for (const auto& [fault, what] : kFaults) {
      if (auto p = with_bad_tensor(plugin, name, fault, what, x, shape, optional)) return *p;
    }
  }
  if (optional == tried) {
    return fail("no missing tensor is refused ({} were left out in turn).", tried);
  }
  return pass("{} tensors missing, cut and of another dtype were refused.", tried);
}

Finding check_config_fuzz(Context& context) {
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  const std::string base = context.subject.manifest ? context.subject.manifest->config : "";
  const int rounds = context.amount(0, 100, 1000, 20000);
  int refused = 0;
  int tried = 0;
  for (; tried < rounds && !context.late(); ++tried) {
    Host host(context);
    Instance instance(plugin, host);
    if (!instance.create()) return skip("create gave null, see case 26.");
    const std::string text = mutated(context.random, base);
    const int32_t status = instance.prepare(text);
    if (!status_known(status)) {
      return fail("prepare returned {} for a text of {} bytes (expected a status of the ABI).",
                  status, text.size());
    }
    if (status != CHIMERA_OK) ++refused;
    instance.destroy();
    if (host.accounts().blocks != 0)
      return fail("a text of {} bytes leaves memory behind.", text.size());
  }
  return pass("{} texts, {} refused.", tried, refused);
}

Finding check_exceptions(Context& context) {
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  const auto& d = plugin.descriptor();
  const Matrix x = random_rows(context, usable_rows(d, 3), d.d_model);
  const Shape shape = some_experts(context, d).front();
  {
    Host host(context);
    Instance instance(plugin, host);
    if (instance.create()) instance.prepare("\xff{{{ no configuration");
  }
  provoke(plugin, x, shape);
  uint64_t points = 0;
  if (allocations_watched() && context.exceptions.empty()) points = exhaust_heap(plugin, x, shape);
  plugin.deinit();
  if (!context.exceptions.empty())
    return fail("{} crossed the boundary.", context.exceptions.front());
  if (points == 0) return pass("no exception, whatever was asked.");
  return pass("no exception, whatever was asked and wherever of {} allocations the heap ran out.",
              points);
}

Finding check_log_flood(Context& context) {
  constexpr int kCalls = 500;
  constexpr uint64_t kLinesOfLife = 200, kLinesOfCalls = 50;
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  const auto& d = plugin.descriptor();
  const uint64_t printed = bytes_printed(context);
  const Matrix x = random_rows(context, usable_rows(d, 2), d.d_model);
  Host host(context);
  Instance instance(plugin, host);
  if (auto problem = instance.start(x.rows)) return *problem;
  const uint64_t before = host.accounts().log_lines;
  Batch batch(d, x, some_experts(context, d).front());
  for (int i = 0; i < kCalls; ++i) instance.forward(batch.abi());
  const uint64_t lines = host.accounts().log_lines - before;
  instance.destroy();
  const auto a = host.accounts();
  if (lines > kLinesOfCalls) {
    return fail("{} log lines in {} calls of forward (expected {} at most).", lines, kCalls,
                kLinesOfCalls);
  }
  if (a.log_lines > kLinesOfLife)
    return fail("{} log lines in one life (expected fewer).", a.log_lines);
  if (const uint64_t now = bytes_printed(context); now != printed) {
    return fail("{} bytes printed past the log (expected chimera.log/1 alone).", now - printed);
  }
  if (a.longest_line > CHIMERA_LOG_MAX_BYTES) {
    return warn("a log line of {} bytes will be cut at {}.", a.longest_line, CHIMERA_LOG_MAX_BYTES);
  }
  return pass("{} log lines in one life with {} calls of forward.", a.log_lines, kCalls);
}

}  // namespace chimera::check
