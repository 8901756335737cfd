// `chimera blend`: how much of each parent is in an assembly.
#include "base/limits.h"
#include "change.h"
#include "sweep/sweep.h"

namespace chimera::cli {
namespace {

namespace po = boost::program_options;

/// "legal-b=0.3"; the name may hold further signs.
std::optional<Error> take_parent(const std::string& text, std::map<std::string, double>& out) {
  auto given = named_number(text);
  if (!given) {
    return bad_usage("PARENT: " + text + " (expected PARENT=NUMBER)",
                     "for instance: chimera blend legal legal-b=0.3");
  }
  if (!out.insert(std::move(*given)).second) {
    return bad_usage("PARENT: " + text + " (expected every parent once)", "");
  }
  return std::nullopt;
}

Outcome blend(const Invocation& run) {
  if (run.options.count("sweep") > 0) return run_sweep(run);
  wire::Blend call;
  call.name = run.arguments[0];
  for (size_t i = 1; i < run.arguments.size(); ++i) {
    if (auto error = take_parent(run.arguments[i], call.lambda)) return std::move(*error);
  }
  if (call.lambda.empty()) {
    return bad_usage("PARENT: none (expected PARENT=NUMBER)",
                     "`chimera modules` shows the parents of an assembly");
  }
  const auto restart = wants_restart(run.options);
  if (const auto* error = std::get_if<Error>(&restart)) return *error;
  call.restart = std::get<bool>(restart);
  call.waiting = waiting_of(run);
  return show_load(run, call, call.waiting);
}

void add_options(po::options_description& options) {
  add_change_options(options);
  add_sweep_options(options);
}

}  // namespace

void add_blend_command(std::vector<Command>& commands) {
  commands.push_back({"blend", "NAME PARENT=X... [options]",
                      "how much of each parent an assembly has", 1, 1 + kMaxParents, add_options,
                      blend});
}

}  // namespace chimera::cli
