// Commands that show what is loaded, and what was.
#include <fmt/format.h>

#include <set>

#include "commands.h"
#include "job.h"

namespace chimera::cli {
namespace {

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

/// "legal-a 0.4, legal-b 0.6": what an assembly is made of; "" of other modules.
std::string parents_of(const Json& lambda) {
  std::string text;
  for (const auto& [parent, value] : lambda.items()) {
    text += fmt::format("{}{} {}", text.empty() ? "" : ", ", parent, fixed(value));
  }
  return text;
}

/// How a module fares whose experts are code.
void show_library(const Output& out, const std::string& name, const Json& library) {
  if (!library.is_object()) return;
  const auto restarts = library.value("restarts", uint64_t{0});
  std::string text = fmt::format("{}: {}", name, library.value("isolation", ""));
  if (const std::string sandbox = library.value("sandbox", ""); !sandbox.empty()) {
    text += ", sandbox " + sandbox;
  }
  text += fmt::format("; {} restart{}", restarts, restarts == 1 ? "" : "s");
  if (const std::string error = library.value("last_error", ""); !error.empty()) {
    text += "; last error: " + error;
  }
  out.line(text);
}

/// "loading 45 %" of one that is on its way in.
std::string state_of(const Json& module) {
  const std::string part = part_done(module["job"]);
  return module.value("state", "") + (part.empty() ? "" : " " + part);
}

/// Whether modules with weights keep them in more than one precision.
bool precisions_differ(const Json& modules) {
  std::set<std::string> found;
  for (const Json& m : modules) {
    if (m.contains("precision")) found.insert(m.value("precision", ""));
  }
  return found.size() > 1;
}

Outcome modules(const Invocation& run) {
  const auto event = run.client.call(wire::Modules{}, kAnswerWait);
  if (!event.ok()) return event.error();
  if (run.out.json()) {
    for (const Json& module : event->body["modules"]) run.out.object(module);
    return 0;
  }
  std::vector<std::vector<std::string>> rows;
  std::vector<std::string> header{"module",  "version", "state",      "bias",
                                  "experts", "memory",  "description"};
  const bool mixed = precisions_differ(event->body["modules"]);
  if (mixed) header.insert(header.end() - 1, "precision");
  for (const Json& m : event->body["modules"]) {
    rows.push_back(
        {m.value("name", ""), m.value("version", ""), state_of(m), fixed(m["bias"]),
         fixed(m["experts"]),
         m.value("resident", true) ? human_bytes(m.value("resident_bytes", 0.0)) : "not read",
         m.value("description", "")});
    if (mixed) rows.back().insert(rows.back().end() - 1, m.value("precision", "-"));
  }
  if (rows.empty()) {
    run.out.line("No modules are loaded; `chimera load PATH` loads one.");
    show_kept_libraries(run, event->body["kept_libraries"]);
    return 0;
  }
  run.out.table(header, rows, {3, 4, 5});
  for (const Json& m : event->body["modules"]) {
    const std::string parents = parents_of(m["lambda"]);
    if (!parents.empty()) run.out.line(m.value("name", "") + ": " + parents);
    show_library(run.out, m.value("name", ""), m["library"]);
  }
  show_kept_libraries(run, event->body["kept_libraries"]);
  return 0;
}

/// "legal 1.2.0 bias 0.5, bio 2.0.0 (disabled); revoked: finance" of one epoch.
std::string describe_modules(const Json& record) {
  std::string text;
  for (const Json& module : record["modules"]) {
    const double bias = module.value("bias", 0.0);
    text += (text.empty() ? "" : ", ") + module.value("name", "") + " " +
            module.value("version", "") + (bias != 0.0 ? fmt::format(" bias {:g}", bias) : "") +
            (module.contains("precision") ? " " + module.value("precision", "") : "") +
            (module.contains("weight") ? fmt::format(" weight {:g}", module.value("weight", 0.0))
                                       : "") +
            (module.contains("lambda") ? " (" + parents_of(module["lambda"]) + ")" : "") +
            (module.value("enabled", true) ? "" : " (disabled)");
  }
  std::string revoked;
  for (const Json& name : record["revoked"]) {
    revoked += (revoked.empty() ? "" : ", ") + (name.is_string() ? *name.string() : "");
  }
  return revoked.empty() ? text : text + (text.empty() ? "" : "; ") + "revoked: " + revoked;
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
    const bool current = epoch == body.value("epoch", uint64_t{0});
    rows.push_back({fmt::format("{}{}", epoch, current ? " *" : ""), record.value("time", ""), live,
                    short_digest(record.value("composition", "")), describe_modules(record)});
  }
  run.out.table({"epoch", "time", "live", "composition", "modules"}, rows, {2});
  run.out.line(fmt::format("* current ({})", body.value("epoch", uint64_t{0})));
  for (const Json& one : body["live"]) {
    if (!one.value("canary", false)) continue;
    run.out.line(fmt::format("canary: epoch {}, {} live  {}", one.value("epoch", uint64_t{0}),
                             one.value("sequences", 0),
                             short_digest(one.value("composition", ""))));
  }
  return 0;
}

}  // namespace

void add_listing_commands(std::vector<Command>& commands) {
  commands.push_back({"modules", "", "what is loaded", 0, 0, {}, modules});
  commands.push_back({"epochs", "", "published routing tables", 0, 0, {}, epochs});
}

}  // namespace chimera::cli
