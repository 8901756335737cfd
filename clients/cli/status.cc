// Commands that show how the daemon does, and those that end it.
#include <fmt/format.h>

#include <numeric>

#include "base/json/writer.h"
#include "commands.h"

namespace chimera::cli {
namespace {

namespace po = boost::program_options;
using client::Milliseconds;

std::string text_of(const Json& value) {
  return value.is_string() ? *value.string() : write_json(value);
}

/// Shows an answer as names and values, nested objects with a dot.
void show_pairs(const Output& out, const Json& body) {
  std::vector<std::pair<std::string, std::string>> pairs;
  for (const auto& [name, value] : body.items()) {
    if (name == "id" || name == "event") continue;
    if (value.is_object()) {
      for (const auto& [inner, number] : value.items()) {
        pairs.emplace_back(name + "." + inner, text_of(number));
      }
    } else if (name == "notes") {
      for (const Json& note : value) pairs.emplace_back("note", text_of(note));
    } else if (!value.is_array()) {
      pairs.emplace_back(name, text_of(value));
    }
  }
  out.pairs(pairs);
}

Outcome show(const Invocation& run, const wire::Call& call, Milliseconds wait = kAnswerWait) {
  const auto event = run.client.call(call, wait);
  if (!event.ok()) return event.error();
  run.out.json() ? run.out.object(event->body) : show_pairs(run.out, event->body);
  return 0;
}

Outcome health(const Invocation& run) {
  const auto event = run.client.call(wire::Health{}, kAnswerWait);
  if (!event.ok()) return event.error();
  const std::string status = event->body.value("status", "");
  const bool ok = status == "ok";
  if (run.out.json()) {
    run.out.object(event->body);
  } else {
    run.out.line(fmt::format("{}  epoch {}",
                             run.out.styled(status, ok ? Style::kGood : Style::kBad),
                             event->body.value("epoch", uint64_t{0})));
  }
  if (ok) return 0;
  // For scripts that look at the exit status alone: it is there, and takes no requests.
  return Error{"unavailable", fmt::format("health: {} (expected ok)", status),
               "send requests to another daemon, or wait until it is started again"};
}

std::string layer_shares(const Json& modules) {
  std::string text;
  for (const auto& [name, module] : modules.items()) {
    text +=
        fmt::format("{}{} {}", text.empty() ? "" : "  ", name, percent(module.value("share", 0.0)));
  }
  return text;
}

void show_layers(const Output& out, const Json& layers) {
  std::vector<std::vector<std::string>> rows;
  for (const Json& layer : layers) {
    rows.push_back({text_of(layer["layer"]), text_of(layer["tokens"]),
                    fmt::format("{:.3f}", layer.value("entropy", 0.0)),
                    layer_shares(layer["modules"])});
  }
  out.table({"layer", "tokens", "entropy", "shares"}, rows, {0, 1, 2});
}

/// One layer with the tokens of every expert.
void show_experts(const Output& out, const Json& layer) {
  uint64_t total = 0;
  for (const auto& [name, module] : layer["modules"].items()) {
    for (const Json& count : module["experts"]) total += count.natural().value_or(0);
  }
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, module] : layer["modules"].items()) {
    size_t expert = 0;
    for (const Json& count : module["experts"]) {
      const double fraction =
          total == 0 ? 0.0 : count.number().value_or(0.0) / static_cast<double>(total);
      rows.push_back({name, std::to_string(expert++), write_json(count), percent(fraction),
                      bar(fraction, 30)});
    }
  }
  out.table({"module", "expert", "tokens", "part", ""}, rows, {1, 2, 3});
}

Outcome routing(const Invocation& run) {
  wire::Routing call;
  call.reset = run.options["reset"].as<bool>();
  if (run.options.count("layer") > 0) call.layer = run.options["layer"].as<int64_t>();
  const auto event = run.client.call(call, kAnswerWait);
  if (!event.ok()) return event.error();
  const Json& layers = event->body["layers"];
  const std::string since = event->body.value("since", "");
  if (run.out.json()) {
    for (const Json& layer : layers) run.out.object(layer);
    return 0;
  }
  if (!since.empty()) run.out.line("since  " + since);
  if (layers.empty()) {
    run.out.line("No tokens have been routed yet.");
  } else if (call.layer) {
    show_experts(run.out, layers[0]);
  } else {
    show_layers(run.out, layers);
  }
  return 0;
}

constexpr uint64_t kDrainSeconds = 30;

Outcome requests(const Invocation& run) {
  const auto event = run.client.call(wire::Requests{}, kAnswerWait);
  if (!event.ok()) return event.error();
  const Json& listed = event->body["requests"];
  std::vector<std::vector<std::string>> rows;
  for (const Json& one : listed) {
    if (run.out.json()) run.out.object(one);
    rows.push_back({one.value("id", ""), one.value("call", ""), one.value("endpoint", ""),
                    fmt::format("{:.1f}", one.value("seconds", 0.0))});
  }
  if (run.out.json()) return 0;
  if (rows.empty()) {
    run.out.line("No request is in progress.");
  } else {
    run.out.table({"id", "call", "endpoint", "seconds"}, rows, {3});
  }
  return 0;
}

Outcome cancel(const Invocation& run) {
  const auto event = run.client.call(wire::CancelAny{run.arguments[0]}, kAnswerWait);
  if (!event.ok()) return event.error();
  const auto ended = event->body.value("cancelled", uint64_t{0});
  if (ended == 0) {
    return Error("not_found",
                 fmt::format("cancel: {} is not in progress (expected a request or job that is)",
                             run.arguments[0]),
                 "`chimera requests` and `chimera jobs` list them");
  }
  if (run.out.json()) {
    run.out.object(event->body);
  } else if (run.arguments[0].starts_with("job-")) {
    run.out.line("cancelled " + run.arguments[0]);
  } else {
    run.out.line(fmt::format("cancelled {} request{}", ended, ended == 1 ? "" : "s"));
  }
  return 0;
}

Outcome drain(const Invocation& run) {
  constexpr uint64_t kLongest = 86'400;  // as on the wire
  const uint64_t given =
      run.options.count("timeout") > 0 ? run.options["timeout"].as<Whole>().value : kDrainSeconds;
  if (given > kLongest) {
    return bad_usage(fmt::format("--timeout: {} (expected 0 to {} seconds)", given, kLongest), "");
  }
  const auto seconds = static_cast<int64_t>(given);
  const wire::Drain call{seconds * 1000};
  const auto event = run.client.call(call, Milliseconds(seconds * 1000) + kAnswerWait);
  if (!event.ok()) return event.error();
  const bool drained = event->body.value("drained", false);
  if (run.out.json()) {
    run.out.object(event->body);
  } else if (drained) {
    run.out.line("drained: no request is in progress, new ones are refused");
  }
  if (drained) return 0;
  return Error{"deadline_exceeded",
               fmt::format("drain: requests still in progress after {} s (expected none)", seconds),
               "wait longer with --timeout, or end the daemon with `chimera shutdown`"};
}

Outcome shutdown(const Invocation& run) {
  const auto event = run.client.call(wire::Shutdown{}, kAnswerWait);
  if (!event.ok()) return event.error();
  run.out.json() ? run.out.object(event->body) : run.out.line("shutting down");
  return 0;
}

}  // namespace

void add_status_commands(std::vector<Command>& commands) {
  commands.push_back({"routing", "[--layer L] [--reset]", "where tokens went", 0, 0,
                      [](po::options_description& options) {
                        auto add = options.add_options();
                        add("layer", po::value<int64_t>()->value_name("L"),
                            "this layer, expert by expert");
                        add("reset", po::bool_switch(), "begin to count anew after this answer");
                      },
                      routing});
  commands.push_back({"requests", "", "requests in progress, of all clients", 0, 0, {}, requests});
  commands.push_back(
      {"cancel", "ID", "end a request or job (`requests`, `jobs`)", 1, 1, {}, cancel});
  commands.push_back(
      {"stats", "", "counters of engine and server", 0, 0, {}, [](const Invocation& run) {
         return show(run, wire::Stats{});
       }});
  commands.push_back({"info", "", "model, limits, versions", 0, 0, {}, [](const Invocation& run) {
                        return show(run, wire::Info{});
                      }});
  commands.push_back({"health", "", "is it there?", 0, 0, {}, health});
  commands.push_back({"drain", "[--timeout S]", "refuse new requests, wait for live ones", 0, 0,
                      [](po::options_description& options) {
                        options.add_options()("timeout", po::value<Whole>()->value_name("S"),
                                              "seconds to wait (30)");
                      },
                      drain});
  commands.push_back({"shutdown", "", "drain and end the daemon", 0, 0, {}, shutdown});
}

}  // namespace chimera::cli
