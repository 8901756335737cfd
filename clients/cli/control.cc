// Commands that change what is loaded, or show it.
#include <fmt/format.h>

#include <charconv>
#include <filesystem>

#include "commands.h"
#include "composition_file.h"

namespace chimera::cli {
namespace {

namespace po = boost::program_options;

/// What the daemon has to say of a composition that it accepted.
void show_notes(const Output& out, const Json& body) {
  for (const Json& note : body["notes"]) {
    if (const std::string* text = note.string()) out.line(fmt::format("note  {}", *text));
  }
}

Outcome show_change(const Invocation& run, const wire::Call& call) {
  const auto event = run.client.call(call);
  if (!event.ok()) return event.error();
  const Json& body = event->body;
  if (run.out.json()) {
    run.out.object(body);
    return 0;
  }
  for (const Json& change : body["changes"]) {
    run.out.line(fmt::format("{} {}  {}", run.out.styled(change.value("action", ""), Style::kGood),
                             change.value("module", ""), change.value("detail", "")));
  }
  show_notes(run.out, body);
  run.out.line(fmt::format("epoch {}  {}", body.value("epoch", uint64_t{0}),
                           short_digest(body.value("composition", ""))));
  return 0;
}

std::string fixed(const Json& value) {
  return value.is_number() ? fmt::format("{:g}", *value.number()) : "";
}

/// Retired libraries that are still mapped: the operator should know before the cap is reached.
void show_kept_libraries(const Invocation& run, const Json& kept) {
  if (!kept.is_array() || kept.empty()) return;
  double bytes = 0.0;
  for (const Json& image : kept) bytes += image.value("bytes", 0.0);
  run.out.line(
      fmt::format("{} retired librar{} ({}) could not be unmapped; `chimera stats` says why",
                  kept.size(), kept.size() == 1 ? "y" : "ies", human_bytes(bytes)));
}

Outcome modules(const Invocation& run) {
  const auto event = run.client.call(wire::Modules{}, kAnswerWait);
  if (!event.ok()) return event.error();
  if (run.out.json()) {
    for (const Json& module : event->body["modules"]) run.out.object(module);
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const Json& m : event->body["modules"]) {
    rows.push_back({m.value("name", ""), m.value("version", ""), m.value("state", ""),
                    fixed(m["bias"]), fixed(m["experts"]),
                    human_bytes(m.value("resident_bytes", 0.0)), m.value("description", "")});
  }
  if (rows.empty()) {
    run.out.line("No modules are loaded; `chimera load PATH` loads one.");
    show_kept_libraries(run, event->body["kept_libraries"]);
    return 0;
  }
  run.out.table({"module", "version", "state", "bias", "experts", "memory", "description"}, rows,
                {3, 4, 5});
  show_kept_libraries(run, event->body["kept_libraries"]);
  return 0;
}

std::string absolute(const std::string& path) {
  std::error_code failed;
  const auto full = std::filesystem::absolute(path, failed);
  return failed ? path : full.lexically_normal().string();
}

std::variant<bool, Error> wants_restart(const po::variables_map& options) {
  const auto& in_flight = options["in-flight"].as<std::string>();
  if (in_flight == "pin" || in_flight == "restart") return in_flight == "restart";
  return Error{"invalid_argument", "--in-flight: " + in_flight + " (expected pin or restart)", ""};
}

Outcome load(const Invocation& run) {
  wire::Load call;
  call.path = absolute(run.arguments[0]);
  if (run.options.count("name") > 0) call.name = run.options["name"].as<std::string>();
  if (run.options["disabled"].as<bool>()) call.enabled = false;
  if (run.options.count("bias") > 0) call.bias = run.options["bias"].as<double>();
  const auto restart = wants_restart(run.options);
  if (const auto* error = std::get_if<Error>(&restart)) return *error;
  call.restart = std::get<bool>(restart);
  return show_change(run, call);
}

Outcome bias(const Invocation& run) {
  const std::string& text = run.arguments[1];
  wire::Bias call{run.arguments[0], 0.0};
  const char* end = text.data() + text.size();
  const auto parsed = std::from_chars(text.data(), end, call.value);
  if (parsed.ec != std::errc() || parsed.ptr != end) {
    return Error{"invalid_argument", "VALUE: " + text + " (expected a number)",
                 "for instance: chimera bias legal 0.5"};
  }
  return show_change(run, call);
}

void show_plan(const Output& out, const Json& plan) {
  std::vector<std::vector<std::string>> rows;
  for (const Json& change : plan["changes"]) {
    rows.push_back(
        {change.value("action", ""), change.value("module", ""), change.value("detail", "")});
  }
  if (rows.empty()) {
    out.line("Nothing would change.");
  } else {
    out.table({"change", "module", "detail"}, rows);
  }
  out.line(
      fmt::format("memory while both are live  {}", human_bytes(plan.value("memory_bytes", 0.0))));
  out.line("composition  " + short_digest(plan.value("composition", "")));
  show_notes(out, plan);
  for (const Json& refusal : plan["refusals"]) {
    out.line(fmt::format("{}  {}. {}", out.styled("refused", Style::kBad),
                         refusal.value("message", ""), refusal.value("hint", "")));
  }
}

Outcome plan(const Invocation& run) {
  auto composition = read_composition_file(run.arguments[0]);
  if (auto* error = std::get_if<Error>(&composition)) return *error;
  const auto event = run.client.call(wire::Plan{std::get<std::string>(composition)});
  if (!event.ok()) return event.error();
  run.out.json() ? run.out.object(event->body) : show_plan(run.out, event->body);
  return event->body.value("accepted", false) ? 0 : 1;
}

Outcome apply(const Invocation& run) {
  auto composition = read_composition_file(run.arguments[0]);
  if (auto* error = std::get_if<Error>(&composition)) return *error;
  const auto restart = wants_restart(run.options);
  if (const auto* error = std::get_if<Error>(&restart)) return *error;
  return show_change(run, wire::Apply{std::get<std::string>(composition), std::get<bool>(restart)});
}

Outcome rollback(const Invocation& run) {
  wire::Rollback call;
  if (!run.arguments.empty()) {
    const std::string& text = run.arguments[0];
    uint64_t epoch = 0;
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, epoch);
    if (parsed.ec != std::errc() || parsed.ptr != end || epoch == 0) {
      return Error{"invalid_argument", "EPOCH: " + text + " (expected a number from 1)",
                   "see: chimera epochs"};
    }
    call.epoch = epoch;
  }
  return show_change(run, call);
}

Outcome epochs(const Invocation& run) {
  const auto event = run.client.call(wire::Epochs{}, kAnswerWait);
  if (!event.ok()) return event.error();
  const Json& body = event->body;
  if (run.out.json()) {
    run.out.object(body);
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  for (const Json& record : body["history"]) {
    const auto epoch = record.value("epoch", uint64_t{0});
    std::string live = "-";
    for (const Json& one : body["live"]) {
      if (one.value("epoch", uint64_t{0}) != epoch) continue;
      live = std::to_string(one.value("sequences", 0));
    }
    std::string names;
    for (const Json& module : record["modules"]) {
      names += (names.empty() ? "" : ", ") + module.value("name", "") + " " +
               module.value("version", "") + (module.value("enabled", true) ? "" : " (off)");
    }
    const bool current = epoch == body.value("epoch", uint64_t{0});
    rows.push_back({fmt::format("{}{}", epoch, current ? " *" : ""), record.value("time", ""), live,
                    short_digest(record.value("composition", "")), names});
  }
  run.out.table({"epoch", "time", "live", "composition", "modules"}, rows, {2});
  run.out.line(fmt::format("* current ({})", body.value("epoch", uint64_t{0})));
  return 0;
}

void add_in_flight(po::options_description& options) {
  options.add_options()("in-flight",
                        po::value<std::string>()->default_value("pin")->value_name("pin|restart"),
                        "generations in progress stay on their table, or move to the new one");
}

void add_load_options(po::options_description& options) {
  auto add = options.add_options();
  add("name", po::value<std::string>()->value_name("NAME"), "must be the name in its module.yaml");
  add("disabled", po::bool_switch(), "load it without using it yet");
  add("bias", po::value<double>()->value_name("X"), "added to its gate");
  add_in_flight(options);
}

}  // namespace

void add_control_commands(std::vector<Command>& commands) {
  commands.push_back({"modules", "", "what is loaded", 0, 0, {}, modules});
  commands.push_back({"load", "PATH [options]", "load a module, or swap the one of its name", 1, 1,
                      add_load_options, load});
  commands.push_back(
      {"unload",
       "NAME",
       "retire a module after its last stream",
       1,
       1,
       {},
       [](const Invocation& run) { return show_change(run, wire::Unload{run.arguments[0]}); }});
  commands.push_back(
      {"revoke", "NAME", "take a module out now", 1, 1, {}, [](const Invocation& run) {
         return show_change(run, wire::Revoke{run.arguments[0]});
       }});
  commands.push_back({"bias", "NAME VALUE", "favour a module (or not)", 2, 2, {}, bias});
  commands.push_back({"plan", "FILE", "what apply would change, need and refuse", 1, 1, {}, plan});
  commands.push_back({"apply", "FILE [options]", "make a composition the current one", 1, 1,
                      add_in_flight, apply});
  commands.push_back(
      {"rollback", "[EPOCH]", "back to an epoch's composition, or one", 0, 1, {}, rollback});
  commands.push_back({"epochs", "", "published routing tables", 0, 0, {}, epochs});
}

}  // namespace chimera::cli
