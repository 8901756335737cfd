// Group C: the life cycle of instances.
#include <cstring>
#include <functional>
#include <thread>

#include "check/cases/case.h"
#include "check/instance.h"
#include "check/process_state.h"

namespace chimera::check {
namespace {

std::string left_behind(const Host& host) {
  const auto a = host.accounts();
  return a.blocks == 0
             ? ""
             : fmt::format("{} blocks ({} bytes) of host memory are left", a.blocks, a.used_bytes);
}

/// Runs `body` on a thread of its own: roles may move.
void elsewhere(const std::function<void()>& body) { std::thread(body).join(); }

/// Text of the first few entries.
std::string listed(const std::vector<std::string>& all) {
  std::string out;
  for (size_t i = 0; i < all.size() && i < 3; ++i) out += (i == 0 ? "" : "; ") + all[i];
  return out;
}

}  // namespace

Finding check_create_destroy(Context& context) {
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  uint64_t rounds = context.amount<uint64_t>(20, 100, 1000, 10000);
  const double started = context.elapsed_s();
  MemoryUse before;
  for (uint64_t i = 0; i < 2 * rounds; ++i) {
    if (i == 2) rounds = context.affordable(rounds, 1, context.elapsed_s() - started);
    if (i == rounds) before = memory_use();
    Host host(context);
    Instance instance(plugin, host);
    if (!instance.create()) return skip("create gave null, see case 26.");
    instance.destroy();
    if (auto text = left_behind(host); !text.empty()) return fail("after destroy {}.", text);
  }
  if (auto text = growth(before, memory_use(), rounds); !text.empty()) return fail("{}.", text);
  return pass("{} instances created and destroyed without prepare.", 2 * rounds);
}

Finding check_prepare_failure(Context& context) {
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  const auto& d = plugin.descriptor();
  const std::string odd[] = {std::string("\xff\xfe\x00\x01", 4), "{{{{", "no_such_key: [1, 2",
                             std::string(4096, 'x')};
  uint64_t failures = 0;
  const uint64_t rounds = 4 + d.required_service_count;
  MemoryUse before;
  for (int turn = 0; turn < 40; ++turn) {
    if (turn == 20) before = memory_use();
    for (uint64_t i = 0; i < rounds; ++i) {
      Host host(context);
      if (i >= 4) host.missing = {d.required_services_borrowed[i - 4]};
      Instance instance(plugin, host);
      if (!instance.create()) return skip("create gave null, see case 26.");
      const int32_t status = i < 4 ? instance.prepare(odd[i]) : instance.prepare();
      if (status != CHIMERA_OK) ++failures;
      instance.destroy();
      if (auto text = left_behind(host); !text.empty())
        return fail("after prepare and destroy {}.", text);
    }
  }
  if (auto text = growth(before, memory_use(), 20 * rounds); !text.empty())
    return fail("{}.", text);
  if (failures == 0)
    return skip("nothing made prepare fail: no configuration, no required service.");
  return pass("prepare failed {} times in {}; destroy left nothing.", failures, 40 * rounds);
}

Finding check_activate_cycles(Context& context) {
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  Host host(context);
  Instance instance(plugin, host);
  const uint32_t rows = usable_rows(plugin.descriptor(), 4);
  if (auto problem = instance.start(rows)) return *problem;
  instance.deactivate();
  const uint64_t used = host.accounts().used_bytes;
  uint64_t rounds = context.amount<uint64_t>(0, 100, 1000, 10000);
  const double started = context.elapsed_s();
  MemoryUse before;
  for (uint64_t i = 0; i < rounds; ++i) {
    if (i == 2) rounds = context.affordable(rounds, i, context.elapsed_s() - started);
    if (i == rounds / 4) before = memory_use();
    if (const int32_t status = instance.activate(rows); status != CHIMERA_OK) {
      return fail("activate number {} returned {}.", i + 2, status_text(status, host));
    }
    instance.deactivate();
    if (const uint64_t now = host.accounts().used_bytes; now != used) {
      return fail("deactivate left {} bytes of host memory (before activate: {}).", now, used);
    }
  }
  if (auto text = growth(before, memory_use(), rounds - rounds / 4); !text.empty()) {
    return fail("{}.", text);
  }
  return pass("{} rounds of activate and deactivate, memory flat.", rounds);
}

Finding check_quiet_create(Context& context) {
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  Host host(context);
  Instance instance(plugin, host);
  if (!instance.create()) return skip("create gave null, see case 26.");
  const auto a = host.accounts();
  if (!a.calls_in_create.empty()) {
    return fail("create called the host: {} (expected no calls before prepare).",
                listed(a.calls_in_create));
  }
  return pass("create made no call to the host.");
}

Finding check_threads(Context& context) {
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  const auto& d = plugin.descriptor();
  const Matrix x = random_rows(context, usable_rows(d, 7), d.d_model);
  const Shape shape = some_experts(context, d).front();
  Host still(context), moving(context);
  Outcome want, got;
  {
    Instance instance(plugin, still);
    if (auto problem = instance.start(x.rows)) return *problem;
    want = instance.run(x, shape);
  }
  Instance instance(plugin, moving);
  int32_t status = CHIMERA_OK;
  elsewhere([&] { instance.create(); });
  elsewhere([&] { status = instance.prepare(); });
  if (status == CHIMERA_OK) elsewhere([&] { status = instance.activate(x.rows); });
  if (status != CHIMERA_OK) {
    return fail("started from several threads it returns {}.", status_text(status, moving));
  }
  for (int i = 0; i < 2; ++i) elsewhere([&] { got = instance.run(x, shape); });
  elsewhere([&] { instance.deactivate(); });
  elsewhere([&] { instance.destroy(); });
  if (got.status != want.status)
    return fail("forward on another thread returned status {}.", got.status);
  if (auto text = difference(d, want.y, got.y); !text.empty()) {
    return fail("forward on another thread gives other outputs: {}.", text);
  }
  std::vector<std::string> violations = still.accounts().violations;
  for (const std::string& v : moving.accounts().violations) violations.push_back(v);
  if (!violations.empty()) return fail("host calls against their tags: {}.", listed(violations));
  return pass("every call on another thread, no host call from a wrong role.");
}

Finding check_two_instances(Context& context) {
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  const auto& d = plugin.descriptor();
  const uint32_t rows = usable_rows(d, 5);
  const Matrix xa = random_rows(context, rows, d.d_model),
               xb = random_rows(context, rows, d.d_model);
  const Shape shape = some_experts(context, d).front();
  Host host_a(context), host_b(context);
  auto a = std::make_unique<Instance>(plugin, host_a);
  if (auto problem = a->start(rows)) return *problem;
  const Matrix alone = a->run(xa, shape).y;
  Instance b(plugin, host_b);
  if (auto problem = b.start(rows)) return fail("a second instance: {}", problem->text);
  const Matrix b_first = b.run(xb, shape).y;
  if (auto text = difference(d, alone, a->run(xa, shape).y); !text.empty()) {
    return fail("a second instance changes the first: {}.", text);
  }
  a.reset();
  if (auto text = difference(d, b_first, b.run(xb, shape).y); !text.empty()) {
    return fail("destroying the first instance changes the second: {}.", text);
  }
  b.reset();
  if (auto text = difference(d, alone, b.run(xa, shape).y); !text.empty()) {
    return fail("two instances give different outputs: {}.", text);
  }
  return pass("two instances, interleaved; one outlived the other.");
}

Finding check_reset(Context& context) {
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  const auto& d = plugin.descriptor();
  const uint32_t rows = usable_rows(d, 9);
  const Matrix x = random_rows(context, rows, d.d_model);
  const Shape shape = some_experts(context, d).front();
  Host host(context), other(context);
  Instance used(plugin, host), fresh(plugin, other);
  if (auto problem = used.start(rows)) return *problem;
  if (auto problem = fresh.start(rows)) return *problem;
  for (int round = 0; round < 3; ++round) {
    for (int i = 0; i < 5; ++i) used.run(random_rows(context, rows, d.d_model), shape);
    if (const int32_t status = used.reset(); status != CHIMERA_OK) {
      return fail("reset returned {}.", status_text(status, host));
    }
  }
  if (auto text = difference(d, fresh.run(x, shape).y, used.run(x, shape).y); !text.empty()) {
    return fail("after reset the outputs are not those of a fresh instance: {}.", text);
  }
  return pass("after use and reset the outputs are those of a fresh instance.");
}

}  // namespace chimera::check
