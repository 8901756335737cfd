// Group F: leaving.
#include <dlfcn.h>
#include <link.h>

#include <algorithm>
#include <fstream>

#include "base/elf/file.h"
#include "check/cases/case.h"
#include "check/instance.h"
#include "check/process_state.h"

namespace chimera::check {
namespace {

/// create … forward … destroy, so that the plugin has had every occasion to leave something.
Problem whole_life(Plugin& plugin, uint32_t wanted_rows = 3) {
  Context& context = plugin.context();
  const auto& d = plugin.descriptor();
  Host host(context);
  Instance instance(plugin, host);
  const Matrix x = random_rows(context, usable_rows(d, wanted_rows), d.d_model);
  if (auto problem = instance.start(x.rows)) return problem;
  for (const Shape& shape : some_experts(context, d)) instance.run(x, shape);
  instance.reset();
  instance.destroy();
  return std::nullopt;
}

std::set<std::string> mapped_files() {
  std::set<std::string> out;
  std::ifstream maps("/proc/self/maps");
  for (std::string line; std::getline(maps, line);) {
    if (const size_t slash = line.find('/'); slash != std::string::npos)
      out.insert(line.substr(slash));
  }
  return out;
}

/// The library with one character of the version text of its descriptor changed.
std::optional<std::string> changed_bytes(const Plugin& plugin, std::string bytes,
                                         std::string& version) {
  const link_map* map = nullptr;
  if (dlinfo(plugin.handle(), RTLD_DI_LINKMAP, &map) != 0) return std::nullopt;
  const auto file = parse_elf(bytes);
  if (!file.ok()) return std::nullopt;
  const chimera_text text = plugin.descriptor().version;
  const auto address = reinterpret_cast<uintptr_t>(text.data_borrowed);
  if (text.size == 0 || address < map->l_addr) return std::nullopt;
  const auto offset = file->file_offset(address - map->l_addr, text.size);
  if (!offset || bytes.compare(*offset, text.size, text_of(text)) != 0) return std::nullopt;
  char& last = bytes[*offset + text.size - 1];
  last = last == '7' ? '8' : '7';
  version = bytes.substr(*offset, text.size);
  return bytes;
}

/// Loads `bytes`; the version that its descriptor says, or a text "!…" when it cannot be loaded.
std::string version_of(Plugin& plugin, const std::string& bytes) {
  std::string problem = plugin.map(bytes);
  if (problem.empty()) problem = plugin.init();
  return problem.empty() ? text_of(plugin.descriptor().version) : "!" + problem;
}

/// One round of case 46; `plugin` stays mapped when it does not claim to be unload-clean.
Problem cycle(Context& context, Plugin* kept) {
  if (kept != nullptr) {
    if (auto problem = kept->init(); !problem.empty()) return fail("init: {}.", problem);
    if (auto problem = whole_life(*kept)) return problem;
    kept->deinit();
    return std::nullopt;
  }
  Plugin plugin(context);
  if (auto problem = plugin.open()) return problem;
  if (auto problem = whole_life(plugin)) return problem;
  plugin.deinit();
  if (!plugin.close()) return fail("a copy stays mapped after close, see case 45.");
  return std::nullopt;
}

}  // namespace

Finding check_after_deinit(Context& context) {
  catch_faults(context);
  Plugin plugin(context);
  if (auto problem = plugin.map(context.subject.bytes); !problem.empty()) {
    return skip("it cannot be used, see case 10: {}.", problem);
  }
  const ProcessState before = process_state(context.output_fd);
  const auto files_before = mapped_files();
  if (auto problem = plugin.init(); !problem.empty()) {
    return skip("it cannot be used, see case 10: {}.", problem);
  }
  if (auto problem = whole_life(plugin)) return *problem;
  plugin.deinit();
  std::string changed = state_difference(before, context.output_fd);
  for (const std::string& file : mapped_files()) {
    if (files_before.count(file) == 0)
      changed += (changed.empty() ? "" : "; ") + file + " is mapped";
  }
  if (exit_handlers() != 0) {
    changed += fmt::format("{}{} exit handlers are registered", changed.empty() ? "" : "; ",
                           exit_handlers());
  }
  if (!changed.empty()) return fail("{}.", changed);
  return pass("threads, descriptors, handlers, timers and mapped files are as before init.");
}

Finding check_unmapped(Context& context) {
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  if (!plugin.unload_clean())
    return skip("it does not claim to be unload-clean: hosts keep it mapped.");
  if (auto problem = whole_life(plugin)) return *problem;
  plugin.deinit();
  if (plugin.close()) return pass("nothing of it is mapped after close.");
  return fail(
      "it claims to be unload-clean and stays mapped: unique symbols, thread-local objects?");
}

Finding check_load_cycles(Context& context) {
  uint64_t rounds = context.amount<uint64_t>(0, 20, 100, 1000);
  Plugin plugin(context);
  if (auto problem = plugin.open()) return *problem;
  const bool clean = plugin.unload_clean();
  plugin.deinit();
  if (clean) plugin.close();
  const double started = context.elapsed_s();
  MemoryUse before;
  for (uint64_t i = 0; i < rounds; ++i) {
    if (i == 2) rounds = context.affordable(rounds, i, context.elapsed_s() - started);
    if (i == rounds / 4) before = memory_use();
    if (auto problem = cycle(context, clean ? nullptr : &plugin)) return *problem;
  }
  const uint64_t watched = rounds - rounds / 4;
  if (auto text = growth(before, memory_use(), watched); !text.empty()) return fail("{}.", text);
  return pass(
      "{} rounds of {}, memory flat.", rounds,
      clean ? "load, a whole life, unload under fresh names" : "init, a whole life, deinit");
}

Finding check_new_bytes(Context& context) {
  Plugin old(context);
  if (auto problem = old.open()) return *problem;
  std::string wanted;
  const auto bytes = changed_bytes(old, context.subject.bytes, wanted);
  if (!bytes) return skip("the version of its descriptor is not a text in the file.");
  const std::string had = text_of(old.descriptor().version);
  const bool clean = old.unload_clean();
  for (const char* when : {"beside the old one", "after the old one was closed"}) {
    Plugin fresh(context);
    const std::string found = version_of(fresh, *bytes);
    if (found.rfind('!', 0) == 0) return skip("it refuses changed bytes: {}.", found.substr(1));
    if (found != wanted) {
      return fail("loaded {}, changed bytes say {} (expected {}).", when, found, wanted);
    }
    if (old.mapped() && text_of(old.descriptor().version) != had) {
      return fail("loading changed bytes changed the library that was there before.");
    }
    if (!clean) break;
    old.deinit();
    old.close();
  }
  return pass("a changed copy says {}, the old one still {}.", wanted, had);
}

}  // namespace chimera::check
