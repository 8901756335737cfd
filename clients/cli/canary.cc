// `chimera canary`: what a part of the new requests tries, how it does, and its ends.
#include <fmt/format.h>

#include "change.h"

namespace chimera::cli {
namespace {

namespace po = boost::program_options;

std::string figure(const Json& side, std::string_view name, std::string_view format) {
  const Json* value = side.find(name);
  return value == nullptr ? "-" : fmt::format(fmt::runtime(format), value->number().value_or(0.0));
}

std::string bound(const Json& bounds, std::string_view name, std::string_view format) {
  return bounds.contains(name) ? "<= " + figure(bounds, name, format) : "-";
}

std::vector<std::string> row(const std::string& name, const Json& side) {
  return {name,
          std::to_string(side.value("requests", uint64_t{0})),
          std::to_string(side.value("failed", uint64_t{0})),
          figure(side, "error_rate", "{:.3f}"),
          figure(side, "ms_per_token", "{:.1f}"),
          figure(side, "bits_per_byte", "{:.3f}")};
}

void show_canary(const Output& out, const Json& canary) {
  const std::string outcome = canary.value("outcome", "");
  std::string line =
      fmt::format("{} {}  {} of new requests  epoch {}  since {}", canary.value("module", ""),
                  canary.value("version", ""), percent(canary.value("fraction", 0.0)),
                  canary.value("epoch", uint64_t{0}), canary.value("since", ""));
  if (outcome != "running") {
    line += fmt::format("\n{} {}: {}",
                        out.styled(outcome, outcome == "aborted" ? Style::kBad : Style::kGood),
                        canary.value("until", ""), canary.value("reason", ""));
  }
  out.line(line);
  const Json& bounds = canary["bounds"];
  out.table({"", "requests", "failed", "error rate", "ms/token", "bits/byte"},
            {row("canary", canary["on_canary"]),
             row("current", canary["on_current"]),
             {"bound", fmt::format("from {}", bounds.value("after", int64_t{0})), "",
              bound(bounds, "error_rate", "{:.3f}"), bound(bounds, "ms_per_token", "{:.1f}"),
              bound(bounds, "bits_per_byte", "{:.3f}")}},
            {1, 2, 3, 4, 5});
}

Outcome status(const Invocation& run) {
  const auto event = run.client.call(wire::Canary{}, kAnswerWait);
  if (!event.ok()) return event.error();
  const Json& body = event->body;
  if (run.out.json()) {
    run.out.object(body);
    return 0;
  }
  if (!body.contains("canary")) run.out.line("no canary");
  for (const char* which : {"canary", "last"}) {
    if (body.contains(which)) show_canary(run.out, body[which]);
  }
  return 0;
}

Outcome canary(const Invocation& run) {
  const std::string wish = run.arguments.empty() ? "status" : run.arguments[0];
  if (wish == "status") return status(run);
  if (wish == "promote") return show_change(run, wire::Promote{});
  if (wish == "abort") return show_change(run, wire::Abort{});
  return bad_usage("canary: " + wish + " (expected status, promote or abort)", "");
}

}  // namespace

std::optional<double> fraction_of(std::string_view text) {
  const bool percents = text.ends_with('%');
  if (percents) text.remove_suffix(1);
  auto value = finite_number(text);
  if (value && percents) *value /= 100.0;
  return value && *value > 0.0 && *value <= 1.0 ? value : std::nullopt;
}

void add_canary_command(std::vector<Command>& commands) {
  commands.push_back(
      {"canary", "[status|promote|abort]", "what a part of the requests tries", 0, 1, {}, canary});
}

}  // namespace chimera::cli
