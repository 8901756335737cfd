// `chimera top`: what the daemon does now. A sample is what `stats`, `modules` and `routing` say at
// one moment; what is shown as "now" lies between two of them.
#include <fmt/format.h>

#include <algorithm>
#include <chrono>
#include <iostream>

#include "commands.h"
#include "terminal/keyboard.h"

namespace chimera::cli {
namespace {

namespace po = boost::program_options;
using Clock = std::chrono::steady_clock;

struct Module {
  std::string name, version, state;
  double bias = 0.0, memory = 0.0;
  double mass =
      0.0;  // of the gate since the counting began: one a token and layer, over all modules
  double now = 0.0;  // its share of the gate's mass between two samples
};

struct Sample {
  Clock::time_point at;
  Json stats;
  std::vector<Module> modules;  // and the backbone, first
};

double number(const Json& stats, const char* name) {
  return stats["engine"][name].number().value_or(0.0);
}

/// The mass that went to a module, over all layers.
double mass(const Json& layers, const std::string& module) {
  double total = 0.0;
  for (const Json& layer : layers) {
    total += layer.value("tokens", 0.0) * layer["modules"][module].value("share", 0.0);
  }
  return total;
}

client::Result<Sample> take(client::Client& client) {
  Sample sample;
  const auto stats = client.call(wire::Stats{}, kAnswerWait);
  if (!stats.ok()) return stats.error();
  sample.at = Clock::now();
  sample.stats = stats->body;
  const auto modules = client.call(wire::Modules{}, kAnswerWait);
  if (!modules.ok()) return modules.error();
  const auto routing = client.call(wire::Routing{}, kAnswerWait);
  if (!routing.ok()) return routing.error();
  const Json& layers = routing->body["layers"];
  Module backbone;
  backbone.name = "backbone";
  backbone.mass = mass(layers, "backbone");
  sample.modules.push_back(std::move(backbone));
  for (const Json& module : modules->body["modules"]) {
    const std::string name = module.value("name", "");
    sample.modules.push_back({.name = name,
                              .version = module.value("version", ""),
                              .state = module.value("state", ""),
                              .bias = module.value("bias", 0.0),
                              .memory = module.value("resident_bytes", 0.0),
                              .mass = mass(layers, name),
                              .now = 0.0});
  }
  return sample;
}

/// What happened between two samples. A daemon that was restarted or reset counts from 0.
struct View {
  View(const Sample& from, const Sample& to) : last(to), modules(to.modules) {
    seconds = std::chrono::duration<double>(to.at - from.at).count();
    double total = 0.0;
    for (Module& module : modules) {
      for (const Module& before : from.modules) {
        if (before.name == module.name) module.now = module.mass - before.mass;
      }
      module.now = std::max(module.now, 0.0);
      total += module.now;
    }
    for (Module& module : modules) module.now = total > 0.0 ? module.now / total : 0.0;
    tokens = rate(from, "generated_tokens");
    prompt = rate(from, "prompt_tokens");
  }

  double rate(const Sample& from, const char* name) const {
    const double grown = number(last.stats, name) - number(from.stats, name);
    return seconds > 0.0 ? std::max(grown, 0.0) / seconds : 0.0;
  }

  const Sample& last;
  std::vector<Module> modules;
  double seconds = 0.0, tokens = 0.0, prompt = 0.0;
};

Json as_json(const View& view) {
  const Json& stats = view.last.stats;
  Json modules = Json::array();
  for (const Module& module : view.modules) {
    modules.push_back({{"name", module.name},
                       {"version", module.version},
                       {"state", module.state},
                       {"bias", module.bias},
                       {"resident_bytes", module.memory},
                       {"share_now", module.now}});
  }
  Json out = {{"epoch", stats["epoch"]},
              {"composition", stats["composition"]},
              {"seconds", view.seconds},
              {"tokens_per_second", view.tokens},
              {"prompt_tokens_per_second", view.prompt},
              {"modules", std::move(modules)}};
  for (const char* name : {"live", "waiting", "finished", "failed", "cancelled", "rejected",
                           "step_ms_p50", "step_ms_p99", "kv_blocks_total", "kv_blocks_free"}) {
    out[name] = stats["engine"][name];
  }
  return out;
}

enum class Order : uint8_t { kLoaded, kShare, kName, kMemory };

void sort(std::vector<Module>& modules, Order order) {
  const auto by = [&](auto value) {
    std::stable_sort(modules.begin(), modules.end(),
                     [&](const Module& a, const Module& b) { return value(a) > value(b); });
  };
  switch (order) {
    case Order::kLoaded:
      return;
    case Order::kShare:
      return by([](const Module& m) { return m.now; });
    case Order::kMemory:
      return by([](const Module& m) { return m.memory; });
    case Order::kName:
      std::sort(modules.begin(), modules.end(),
                [](const Module& a, const Module& b) { return a.name < b.name; });
  }
}

void print(const Output& out, View view, Order order) {
  const Json& stats = view.last.stats;
  const auto count = [&](const char* name) { return static_cast<int64_t>(number(stats, name)); };
  out.line(fmt::format("epoch    {}  {}", stats.value("epoch", uint64_t{0}),
                       short_digest(stats.value("composition", ""))));
  out.line(fmt::format("streams  {} live, {} waiting; {} finished, {} failed, {} cancelled",
                       count("live"), count("waiting"), count("finished"), count("failed"),
                       count("cancelled")));
  out.line(fmt::format("tokens   {:.1f} generated and {:.1f} of prompts per second", view.tokens,
                       view.prompt));
  out.line(fmt::format("steps    p50 {:.2f} ms, p99 {:.2f} ms;  KV blocks {} of {} in use",
                       number(stats, "step_ms_p50"), number(stats, "step_ms_p99"),
                       count("kv_blocks_total") - count("kv_blocks_free"),
                       count("kv_blocks_total")));
  out.line("");
  sort(view.modules, order);
  std::vector<std::vector<std::string>> rows;
  for (const Module& module : view.modules) {
    rows.push_back({module.name, module.version, module.state,
                    module.bias == 0.0 ? "" : fmt::format("{:g}", module.bias),
                    module.memory == 0.0 ? "" : human_bytes(module.memory), percent(module.now),
                    bar(module.now, 20)});
  }
  out.table({"module", "version", "state", "bias", "memory", "share now", ""}, rows, {3, 4, 5});
}

std::optional<Order> order_of(char key) {
  switch (key) {
    case 'l':
      return Order::kLoaded;
    case 's':
      return Order::kShare;
    case 'n':
      return Order::kName;
    case 'm':
      return Order::kMemory;
    default:
      return std::nullopt;
  }
}

Outcome watch(const Invocation& run, std::chrono::milliseconds interval, bool once) {
  auto before = take(run.client);
  if (!before.ok()) return before.error();
  const Keyboard keyboard(run.out.terminal() && !once);
  Order order = Order::kShare;
  while (true) {
    for (const auto end = Clock::now() + interval; Clock::now() < end;) {
      const char key = keyboard.wait(end);
      if (key == 'q' || interrupted()) return 0;
      if (const auto other = order_of(key)) {
        order = *other;
        break;  // shown at once
      }
    }
    auto now = take(run.client);
    if (!now.ok()) return now.error();
    const View view(*before, *now);
    if (run.out.json()) {
      run.out.object(as_json(view));
    } else {
      if (keyboard.active()) std::cout << "\x1b[H\x1b[2J";  // home, clear
      print(run.out, view, order);
      if (keyboard.active())
        run.out.line("\nsort: s share  n name  m memory  l as loaded   q ends");
    }
    std::cout << std::flush;
    if (once || run.out.lost()) return 0;
    before = std::move(now);
  }
}

Outcome top(const Invocation& run) {
  const double seconds = run.options["interval"].as<double>();
  if (!(seconds >= 0.05 && seconds <= 3600.0)) {
    return bad_usage(fmt::format("--interval: {:g} (expected 0.05 to 3600 seconds)", seconds),
                     "see: chimera top --help");
  }
  return watch(run, std::chrono::milliseconds(static_cast<int64_t>(seconds * 1000.0)),
               run.options["once"].as<bool>());
}

}  // namespace

void add_top_command(std::vector<Command>& commands) {
  commands.push_back({"top", "[options]", "what the daemon does now, again and again", 0, 0,
                      [](po::options_description& options) {
                        options.add_options()("interval",
                                              po::value<double>()->default_value(1.0, "1"),
                                              "seconds between two looks")(
                            "once", po::bool_switch(), "look once and end");
                      },
                      top});
}

}  // namespace chimera::cli
