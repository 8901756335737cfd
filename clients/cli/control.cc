// Commands that change what is loaded.
#include <fmt/format.h>

#include <charconv>
#include <filesystem>

#include "base/statement/canonical.h"
#include "change.h"
#include "commands.h"
#include "composition_file.h"
#include "job.h"

namespace chimera::cli {
namespace {

namespace po = boost::program_options;

/// What the daemon has to say of a composition that it accepted.
void show_notes(const Output& out, const Json& body) {
  for (const Json& note : body["notes"]) {
    if (const std::string* text = note.string()) out.line(fmt::format("note  {}", *text));
  }
}

/// What of a deployment file takes effect at the next start only.
void show_needs_restart(const Output& out, const Json& body) {
  for (const Json& note : body["needs_restart"]) {
    out.line(fmt::format("not applied  {}: {} in the file, {} runs; it needs a restart",
                         note.value("key", ""), note.value("wanted", ""),
                         note.value("running", "")));
  }
}

void show_watch(const Output& out, const CompositionFile& file) {
  if (out.json() || !file.has_watch()) return;
  out.line("not applied  watch: SIGHUP makes the daemon take it over from its own file");
}

void show_disabled(const Output& out, const Json& body) {
  std::string names;
  for (const Json& name : body["disabled"]) {
    names += (names.empty() ? "" : ", ") + (name.is_string() ? *name.string() : "");
  }
  if (names.empty()) return;
  out.line("disabled  " + names + "; `chimera enable NAME` uses it");
}

void show_changed(const Output& out, const Json& body) {
  const Json& changes = body["changes"];
  for (const Json& change : changes) {
    std::string line = out.styled(change.value("action", ""), Style::kGood);
    if (!change.value("module", "").empty()) line += " " + change.value("module", "");
    if (!change.value("detail", "").empty()) line += "  " + change.value("detail", "");
    out.line(line);
  }
  if (changes.empty()) out.line("nothing changed");
  show_notes(out, body);
  show_disabled(out, body);
  show_needs_restart(out, body);
  out.line(fmt::format("epoch {}  {}", body.value("epoch", uint64_t{0}),
                       short_digest(body.value("composition", ""))));
  if (body.contains("canary")) {
    out.line(fmt::format("canary  {} of new requests; `chimera canary` tells how it does",
                         percent(body.value("canary", 0.0))));
  }
}

void show_job(const Output& out, const std::string& job) {
  out.line(
      fmt::format("{}  `chimera jobs` shows how far it is, `chimera cancel {}` ends it", job, job));
}

}  // namespace

Outcome show_change(const Invocation& run, const wire::Call& call) {
  const auto event = run.client.call(call);
  if (!event.ok()) return event.error();
  run.out.json() ? run.out.object(event->body) : show_changed(run.out, event->body);
  return 0;
}

Outcome show_load(const Invocation& run, const wire::Call& call, const wire::Waiting& waiting) {
  const auto answer = wait_for(run, call, waiting);
  if (const auto* error = std::get_if<Error>(&answer)) return *error;
  const Json& body = std::get<client::Event>(answer).body;
  if (run.out.json()) {
    run.out.object(body);
  } else if (!waiting.wait) {
    show_job(run.out, body.value("job", ""));
  } else {
    show_changed(run.out, body);
  }
  return 0;
}

std::variant<bool, Error> wants_restart(const po::variables_map& options) {
  const auto& in_flight = options["in-flight"].as<std::string>();
  if (in_flight == "pin" || in_flight == "restart") return in_flight == "restart";
  return bad_usage("--in-flight: " + in_flight + " (expected pin or restart)", "");
}

void add_change_options(po::options_description& options) {
  options.add_options()("in-flight",
                        po::value<std::string>()->default_value("pin")->value_name("pin|restart"),
                        "generations in progress stay on their table, or move to the new one");
  add_waiting_options(options);
}

namespace {

std::string absolute(const std::string& path) {
  std::error_code failed;
  const auto full = std::filesystem::absolute(path, failed);
  return failed ? path : full.lexically_normal().string();
}

Outcome load(const Invocation& run) {
  wire::Load call;
  call.path = absolute(run.arguments[0]);
  if (run.options.count("name") > 0) call.name = run.options["name"].as<std::string>();
  const bool enabled = run.options["enabled"].as<bool>();
  const bool disabled = run.options["disabled"].as<bool>();
  if (enabled && disabled) {
    return bad_usage("--enabled: found beside --disabled (expected one of them)", "");
  }
  if (enabled || disabled) call.enabled = enabled;
  if (run.options.count("bias") > 0) call.bias = run.options["bias"].as<Real>().value;
  if (run.options.count("precision") > 0)
    call.precision = run.options["precision"].as<std::string>();
  if (run.options.count("weight") > 0) call.weight = run.options["weight"].as<Real>().value;
  const auto restart = wants_restart(run.options);
  if (const auto* error = std::get_if<Error>(&restart)) return *error;
  call.restart = std::get<bool>(restart);
  if (run.options.count("canary") > 0) {
    const auto& text = run.options["canary"].as<std::string>();
    call.canary = fraction_of(text);
    if (!call.canary) {
      return bad_usage("--canary: " + text + " (expected a part of all requests, such as 10%)", "");
    }
  }
  call.waiting = waiting_of(run);
  return show_load(run, call, call.waiting);
}

/// With --proof, standard output is the statement alone: a file of it is what `receipt verify`
/// takes.
Outcome revoke(const Invocation& run) {
  const wire::Revoke call{run.arguments[0], run.options["proof"].as<bool>()};
  if (!call.proof || run.out.json()) return show_change(run, call);
  const auto event = run.client.call(call);
  if (!event.ok()) return event.error();
  run.out.line(canonical_json(event->body["proof"]));
  return 0;
}

Outcome bias(const Invocation& run) {
  const std::string& text = run.arguments[1];
  const auto value = finite_number(text);
  if (!value) {
    return bad_usage("VALUE: " + text + " (expected a number)",
                     "for instance: chimera bias legal 0.5");
  }
  return show_change(run, wire::Bias{run.arguments[0], *value});
}

/// Of recent traffic: who gets what, and what they would get.
void show_shares(const Output& out, const Json& plan) {
  const Json* shares = plan.find("shares");
  if (shares == nullptr) return;
  std::vector<std::vector<std::string>> rows;
  for (const Json& share : *shares) {
    const double now = share.value("now", 0.0), then = share.value("then", 0.0);
    rows.push_back({share.value("module", ""), fmt::format("{:.1f} %", 100 * now),
                    fmt::format("{:.1f} %", 100 * then),
                    fmt::format("{:+.1f}", 100 * (then - now))});
  }
  out.table({"share of", "now", "then", "points"}, rows, {1, 2, 3});
  out.line(fmt::format("predicted from {} samples of recent traffic",
                       plan.value("share_samples", int64_t{0})));
}

void show_plan(const Output& out, const Json& plan, const CompositionFile& file) {
  std::vector<std::vector<std::string>> rows;
  for (const Json& change : plan["changes"]) {
    rows.push_back(
        {change.value("action", ""), change.value("module", ""), change.value("detail", "")});
  }
  if (!rows.empty()) {
    out.table({"change", "module", "detail"}, rows);
  } else if (plan.value("accepted", false)) {
    out.line("Nothing would change.");
  }
  show_shares(out, plan);
  const std::string digest = plan.value("composition", "");
  if (!digest.empty()) {  // else it is refused before that much is known
    out.line(fmt::format("memory while both are live  {}",
                         human_bytes(plan.value("memory_bytes", 0.0))));
    const double experts = plan.value("experts_bytes", 0.0);
    if (experts < 0) {
      out.line(fmt::format("replaced experts give back  {}", human_bytes(-experts)));
    } else if (experts > 0) {
      out.line(fmt::format("experts to be read again  {}", human_bytes(experts)));
    }
  }
  show_needs_restart(out, plan);
  if (!digest.empty()) out.line("composition  " + short_digest(digest));
  show_notes(out, plan);
  for (const Json& refusal : plan["refusals"]) {
    out.line(fmt::format("{}  {}. {}", out.styled("refused", Style::kBad),
                         file.located(refusal.value("message", "")), refusal.value("hint", "")));
  }
}

Error located(const CompositionFile& file, const wire::Error& error) {
  return {error.code, file.located(error.message), error.hint};
}

Outcome plan(const Invocation& run) {
  const auto read = CompositionFile::read(run.arguments[0]);
  if (const auto* error = std::get_if<Error>(&read)) return *error;
  const auto& file = std::get<CompositionFile>(read);
  const auto event = run.client.call(wire::Plan{file.wish(), run.options["probe"].as<bool>()});
  if (!event.ok()) return located(file, event.error());
  run.out.json() ? run.out.object(event->body) : show_plan(run.out, event->body, file);
  show_watch(run.out, file);
  return event->body.value("accepted", false) ? 0 : kFailedStatus;
}

Outcome apply(const Invocation& run) {
  const auto read = CompositionFile::read(run.arguments[0]);
  if (const auto* error = std::get_if<Error>(&read)) return *error;
  const auto& file = std::get<CompositionFile>(read);
  const auto restart = wants_restart(run.options);
  if (const auto* error = std::get_if<Error>(&restart)) return *error;
  const wire::Waiting waiting = waiting_of(run);
  const Outcome outcome =
      show_load(run, wire::Apply{file.wish(), std::get<bool>(restart), waiting}, waiting);
  if (const auto* error = std::get_if<Error>(&outcome)) return located(file, *error);
  show_watch(run.out, file);
  return outcome;
}

Outcome rollback(const Invocation& run) {
  wire::Rollback call;
  if (!run.arguments.empty()) {
    const std::string& text = run.arguments[0];
    uint64_t epoch = 0;
    const char* end = text.data() + text.size();
    const auto parsed = std::from_chars(text.data(), end, epoch);
    if (parsed.ec != std::errc() || parsed.ptr != end || epoch == 0) {
      return bad_usage("EPOCH: " + text + " (expected a number from 1)", "see: chimera epochs");
    }
    call.epoch = epoch;
  }
  call.waiting = waiting_of(run);
  return show_load(run, call, call.waiting);
}

void add_load_options(po::options_description& options) {
  auto add = options.add_options();
  add("name", po::value<std::string>()->value_name("NAME"), "must be the name in its module.yaml");
  add("disabled", po::bool_switch(), "load it without using it yet");
  add("enabled", po::bool_switch(), "use it even if it was disabled before");
  add("bias", po::value<Real>()->value_name("X"), "added to its gate");
  add("precision", po::value<std::string>()->value_name("f32|bf16|q8|q4"),
      "in which its experts are kept");
  add("weight", po::value<Real>()->value_name("W"), "of a bundle, beside others");
  add("canary", po::value<std::string>()->value_name("X%"),
      "only this part of the new requests gets it, until `canary promote`");
  add_change_options(options);
}

}  // namespace

void add_control_commands(std::vector<Command>& commands) {
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
  commands.push_back({"revoke", "NAME [--proof]", "take a module out now", 1, 1,
                      [](po::options_description& options) {
                        options.add_options()("proof", po::bool_switch(),
                                              "print what the daemon signs about its end");
                      },
                      revoke});
  commands.push_back(
      {"enable",
       "NAME",
       "use a module that is loaded and disabled",
       1,
       1,
       {},
       [](const Invocation& run) { return show_change(run, wire::Enable{run.arguments[0]}); }});
  commands.push_back(
      {"disable",
       "NAME",
       "keep a module loaded without using it",
       1,
       1,
       {},
       [](const Invocation& run) { return show_change(run, wire::Disable{run.arguments[0]}); }});
  commands.push_back({"bias", "NAME VALUE", "favour a module (or not)", 2, 2, {}, bias});
  commands.push_back({"plan", "FILE [--probe]", "what apply would change, need and refuse", 1, 1,
                      [](po::options_description& options) {
                        options.add_options()("probe", po::bool_switch(),
                                              "load and probe it all, and keep it for apply");
                      },
                      plan});
  commands.push_back({"apply", "FILE [options]", "make a composition the current one", 1, 1,
                      add_change_options, apply});
  commands.push_back({"rollback", "[EPOCH] [options]", "back to an epoch's composition, or a step",
                      0, 1, add_waiting_options, rollback});
}

}  // namespace chimera::cli
