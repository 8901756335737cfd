// Group B: loading, the entry, the factory.
#include <algorithm>
#include <cstring>

#include "check/cases/case.h"
#include "check/instance.h"
#include "check/process_state.h"

namespace chimera::check {
namespace {

constexpr uint64_t kSlowNs = 10'000'000, kTooSlowNs = 100'000'000;

/// Calls into the factory under a name for the verdict.
template <class Body>
void asking(Context& context, const char* what, Body&& body) {
  guarded_call(context, what, [&] {
    body();
    return CHIMERA_OK;
  });
}

/// A copy of `id` that ends before a guard page, so that a read past its NUL is seen.
struct LentId {
  explicit LentId(const std::string& id) : memory("an id", id.size() + 1, 1) {
    std::memcpy(memory.data(), id.c_str(), id.size() + 1);
  }
  const char* get() const { return reinterpret_cast<const char*>(memory.data()); }
  Guarded memory;
};

/// Ids that are nearly `id`.
std::vector<std::string> near_misses(const std::string& id) {
  std::string upper = id;
  for (char& c : upper) c = static_cast<char>(c >= 'a' && c <= 'z' ? c - 32 : c);
  std::vector<std::string> out = {"",       id + "x", id + " ", id + ".debug",   id + "/1",
                                  " " + id, "x" + id, id + id,  "no.such.plugin"};
  if (upper != id) out.push_back(upper);
  if (id.size() > 1) out.push_back(id.substr(0, id.size() - 1));
  if (id.size() > 2) out.push_back(id.substr(1));
  return out;
}

struct LoadTime {
  uint64_t ns = UINT64_MAX;
  std::string problem;
};

LoadTime time_load(Context& context) {
  LoadTime time;
  Plugin plugin(context);
  const uint64_t begin = monotonic_ns();
  time.problem = plugin.map(context.subject.bytes);
  if (time.problem.empty()) time.problem = plugin.init();
  time.ns = monotonic_ns() - begin - plugin.copy_ns();
  return time;
}

}  // namespace

Finding check_load(Context& context) {
  catch_faults(context);
  Plugin plugin(context);
  if (auto problem = plugin.map(context.subject.bytes); !problem.empty())
    return fail("{}.", problem);
  if (auto problem = plugin.init(); !problem.empty()) return fail("{}.", problem);
  uint32_t count = 0;
  asking(context, "factory.count", [&] { count = plugin.factory().count(); });
  if (count == 0 || count > 1024)
    return fail("factory.count: found {} (expected 1 to 1024).", count);
  std::vector<std::string> ids;
  for (uint32_t i = 0; i < count; ++i) {
    const chimera_expert_descriptor* d = nullptr;
    asking(context, "factory.descriptor", [&] { d = plugin.factory().descriptor(i); });
    if (d == nullptr) return fail("factory.descriptor({}): found null (count is {}).", i, count);
    if (auto problem = descriptor_problem(*d); !problem.empty()) {
      return fail("descriptor {}: {}.", i, problem);
    }
    if (std::count(ids.begin(), ids.end(), d->id_borrowed) != 0) {
      return fail("two descriptors have the id {}.", d->id_borrowed);
    }
    ids.push_back(d->id_borrowed);
  }
  const chimera_expert_descriptor& d = plugin.descriptor();
  return pass("{} {}: {} plugin{}, rows of {}, {} layer{}, {}.", d.id_borrowed, text_of(d.version),
              count, count == 1 ? "" : "s", d.d_model, d.layer_count, d.layer_count == 1 ? "" : "s",
              plugin.unload_clean() ? "unload-clean" : "kept loaded");
}

Finding check_constructors(Context& context) {
  const ProcessState before = process_state(context.output_fd);
  Plugin plugin(context);
  const std::string problem = plugin.map(context.subject.bytes);
  const std::string changed = state_difference(before, context.output_fd);
  if (!changed.empty()) return fail("{} (expected nothing before init).", changed);
  if (!problem.empty()) return skip("it cannot be used, see case 10: {}.", problem);
  if (exit_handlers() != 0) return fail("registered {} exit handlers.", exit_handlers());
  return pass("threads, descriptors, signals, environment, locale and FPU are as before.");
}

Finding check_load_time(Context& context) {
  catch_faults(context);
  // The least of several: the machine may be busy, the library is not slower than this.
  LoadTime best;
  for (int round = 0; round < 20 && best.ns >= kSlowNs; ++round) {
    const LoadTime time = time_load(context);
    if (!time.problem.empty()) return skip("it cannot be used, see case 10: {}.", time.problem);
    best.ns = std::min(best.ns, time.ns);
  }
  const double ms = static_cast<double>(best.ns) / 1e6;
  if (best.ns >= kTooSlowNs)
    return fail("load, init and scan took {:.1f} ms (expected < 100).", ms);
  if (best.ns >= kSlowNs) return warn("load, init and scan took {:.1f} ms (expected < 10).", ms);
  return pass("load, init and scan took {:.1f} ms.", ms);
}

Finding check_unknown_factory(Context& context) {
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  std::vector<std::string> ids = near_misses(CHIMERA_EXPERT_FACTORY_ID);
  ids.push_back("chimera.expert-factory/2");
  for (const std::string& id : ids) {
    const LentId lent(id);
    const void* found = nullptr;
    asking(context, "get_factory", [&] { found = plugin.entry().get_factory(lent.get()); });
    if (found != nullptr) return fail("get_factory(\"{}\") is not null.", id);
  }
  return pass("{} ids that it does not have give null.", ids.size());
}

Finding check_unknown_id(Context& context) {
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  Host host(context);
  const auto ids = near_misses(plugin.descriptor().id_borrowed);
  for (const std::string& id : ids) {
    bool own = false;
    for (uint32_t i = 0; i < plugin.factory().count(); ++i) {
      own = own || id == plugin.factory().descriptor(i)->id_borrowed;
    }
    if (own) continue;
    const LentId lent(id);
    chimera_expert* made = nullptr;
    const CallScope scope(Call::kCreate, &host);
    asking(context, "create", [&] { made = plugin.factory().create(lent.get(), host.abi()); });
    if (made == nullptr) continue;
    asking(context, "destroy", [&] { made->destroy(made); });
    return fail("create(\"{}\") is not null; its id is {}.", id, plugin.descriptor().id_borrowed);
  }
  return pass("{} ids that are nearly its own give null.", ids.size());
}

Finding check_descriptor_stable(Context& context) {
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  const auto& factory = plugin.factory();
  const uint32_t count = factory.count();
  const chimera_expert_descriptor* first = &plugin.descriptor();
  const std::string said = descriptor_text(*first);
  for (const uint32_t index : {count, count + 1, UINT32_MAX}) {
    const chimera_expert_descriptor* found = nullptr;
    asking(context, "factory.descriptor", [&] { found = factory.descriptor(index); });
    if (found != nullptr) return fail("descriptor({}) is not null; count is {}.", index, count);
  }
  const auto problem = [&](const char* when) -> std::string {
    if (factory.count() != count) return fmt::format("count changed {}", when);
    uint32_t index = 0;
    while (index < count && factory.descriptor(index) != first) ++index;
    if (index == count) return fmt::format("the descriptor's address changed {}", when);
    return descriptor_text(*first) == said ? "" : fmt::format("the descriptor changed {}", when);
  };
  for (int i = 0; i < 3; ++i) {
    if (auto text = problem("between calls"); !text.empty()) return fail("{}.", text);
  }
  Host host(context);
  Instance instance(plugin, host);
  if (!instance.create()) return skip("create gave null, see case 26.");
  if (instance.abi()->descriptor_borrowed != first) {
    return fail("the instance's descriptor is not the factory's own (expected the same address).");
  }
  if (instance.prepare() == CHIMERA_OK) {
    instance.activate(usable_rows(*first, 16));
    if (auto text = problem("with an active instance"); !text.empty()) return fail("{}.", text);
  }
  instance.destroy();
  if (auto text = problem("after destroy"); !text.empty()) return fail("{}.", text);
  return pass("{} descriptor{}, the same in address and content throughout.", count,
              count == 1 ? "" : "s");
}

Finding check_init_twice(Context& context) {
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  const std::string said = descriptor_text(plugin.descriptor());
  for (int round = 2; round <= 4; ++round) {
    {
      Host host(context);
      Instance instance(plugin, host);
      if (!instance.create()) return fail("create gave null after init number {}.", round - 1);
    }
    plugin.deinit();
    if (auto problem = plugin.init(); !problem.empty())
      return fail("round {}: {}.", round, problem);
    if (descriptor_text(plugin.descriptor()) != said) {
      return fail("the descriptor is another one after init number {}.", round);
    }
  }
  return pass("four rounds of init, scan, create, destroy and deinit.");
}

}  // namespace chimera::check
