// The command usage: what clients took of modules.
#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>
#include <map>

#include "clients/wire/ranges.h"
#include "commands.h"

namespace chimera::cli {
namespace {

namespace po = boost::program_options;

struct Sum {
  uint64_t requests = 0, rows = 0;
  int64_t prompt = 0, completion = 0;
  double share = 0.0;

  void add(const Json& row) {
    requests += row.value("requests", uint64_t{0});
    rows += row.value("rows", uint64_t{0});
    prompt += row.value("prompt_tokens", int64_t{0});
    completion += row.value("completion_tokens", int64_t{0});
    share += row.value("share", 0.0);
  }
};

std::string text(const Json& row, const char* key) { return row.value(key, std::string()); }

/// A field of comma-separated values (RFC 4180).
std::string csv_field(const std::string& value) {
  if (value.find_first_of(",\"\r\n") == std::string::npos) return value;
  std::string out = "\"";
  for (const char c : value) out += c == '"' ? std::string("\"\"") : std::string(1, c);
  return out + "\"";
}

void print_csv(const Invocation& run, const Json& rows) {
  run.out.line("hour,client,module,version,requests,prompt_tokens,completion_tokens,rows,share");
  for (const Json& row : rows) {
    const auto hour = static_cast<std::time_t>(row.value("hour", int64_t{0}));
    Sum sum;
    sum.add(row);
    run.out.line(fmt::format("{:%Y-%m-%dT%H:%M:%SZ},{},{},{},{},{},{},{},{}", fmt::gmtime(hour),
                             csv_field(text(row, "client")), csv_field(text(row, "module")),
                             csv_field(text(row, "version")), sum.requests, sum.prompt,
                             sum.completion, sum.rows, sum.share));
  }
}

/// One line for each module and version, or for each client: of those the requests and tokens are
/// in the rows of the backbone, which every answer has.
void print_sums(const Invocation& run, const Json& rows, bool by_client) {
  std::map<std::vector<std::string>, Sum> sums;
  for (const Json& row : rows) {
    const std::string module = text(row, "module"), version = text(row, "version");
    if (by_client && !version.empty()) {
      sums[{text(row, "client")}].rows += row.value("rows", uint64_t{0});
    } else if (by_client) {
      sums[{text(row, "client")}].add(row);
    } else {
      sums[{module, version}].add(row);
    }
  }
  std::vector<std::vector<std::string>> lines;
  for (const auto& [key, sum] : sums) {
    std::vector<std::string> line = key;
    for (const std::string& figure :
         {std::to_string(sum.requests), std::to_string(sum.prompt), std::to_string(sum.completion),
          std::to_string(sum.rows), fmt::format("{:.3f}", sum.share)}) {
      line.push_back(figure);
    }
    if (by_client) line.pop_back();
    lines.push_back(std::move(line));
  }
  if (by_client) {
    run.out.table({"client", "requests", "prompt tokens", "answer tokens", "rows"}, lines,
                  {1, 2, 3, 4});
  } else {
    run.out.table(
        {"module", "version", "requests", "prompt tokens", "answer tokens", "rows", "share summed"},
        lines, {2, 3, 4, 5, 6});
  }
}

Outcome usage(const Invocation& run) {
  const std::string by = run.options["by"].as<std::string>();
  if (by != "client" && by != "module") {
    return bad_usage(fmt::format("--by: {} (expected client or module)", by),
                     "see: chimera usage --help");
  }
  wire::Usage call;
  call.limit = wire::range::usage_limit.max;
  if (run.options.count("since") > 0) {
    auto since = since_of(run.options);
    if (auto* error = std::get_if<Error>(&since)) return std::move(*error);
    call.since = std::get<int64_t>(since);
  }
  const auto event = run.client.call(call, kAnswerWait);
  if (!event.ok()) return event.error();
  const Json& rows = event->body["rows"];
  if (run.out.json()) {
    for (const Json& row : rows) run.out.object(row);
  } else if (run.options["csv"].as<bool>()) {
    print_csv(run, rows);
  } else {
    print_sums(run, rows, by == "client");
  }
  return 0;
}

}  // namespace

void add_usage_command(std::vector<Command>& commands) {
  commands.push_back(
      {"usage", "[--by client|module] [--since T] [--csv]", "what clients took of modules", 0, 0,
       [](po::options_description& options) {
         auto add = options.add_options();
         add("by", po::value<std::string>()->value_name("WHAT")->default_value("module"),
             "client or module: a line for each of them");
         add("since", po::value<std::string>()->value_name("T"),
             "hours that end later: 30m, 2h, 7d ago, or a moment of UTC");
         add("csv", po::bool_switch(), "every row, as comma-separated values");
       },
       usage});
}

}  // namespace chimera::cli
