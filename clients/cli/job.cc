#include "job.h"

#include <fmt/format.h>

#include <cmath>
#include <cstdio>

namespace chimera::cli {
namespace {

namespace po = boost::program_options;

constexpr int kBarCells = 24;
// Names that fit on a line beside the bar.
constexpr size_t kNamesWidth = 24;

std::string names_of(const Json& job) {
  std::string names;
  for (const Json& name : job["modules"]) {
    names += (names.empty() ? "" : ", ") + (name.is_string() ? *name.string() : "");
  }
  return names;
}

double share_of(const Json& job) {
  const double total = job.value("bytes_total", 0.0);
  return total > 0.0 ? job.value("bytes", 0.0) / total : 0.0;
}

std::string seconds_left(const Json& job) {
  const auto left = job["seconds_left"].number();
  return left ? fmt::format("{:.0f} s left", std::ceil(*left)) : "";
}

/// The line on the terminal that tells of a job; it is gone when this is.
class ProgressLine {
 public:
  explicit ProgressLine(bool shown) : shown_(shown) {}
  ~ProgressLine() {
    if (used_) write("");
  }
  ProgressLine(const ProgressLine&) = delete;
  ProgressLine& operator=(const ProgressLine&) = delete;

  void show(const Json& job) {
    if (!shown_) return;
    used_ = true;
    write(harmless(text(job)));
  }

 private:
  static std::string text(const Json& job) {
    std::string names = names_of(job);
    if (width(names) > kNamesWidth) names = fmt::format("{} modules", job["modules"].size());
    std::string out = fmt::format("{} {}", job.value("phase", ""), names);
    if (part_done(job).empty()) return out;
    out += fmt::format("  [{:<{}}]  {} of {}", bar(share_of(job), kBarCells), kBarCells,
                       part_done(job), human_bytes(job.value("bytes_total", 0.0)));
    const std::string left = seconds_left(job);
    return left.empty() ? out : out + ", " + left;
  }
  static void write(const std::string& text) {
    // To the beginning of the line, the text, and nothing of a longer one before it.
    std::fprintf(stderr, "\r%s\x1b[K", text.c_str());
    std::fflush(stderr);
  }

  const bool shown_;
  bool used_ = false;
};

Error interrupted_error(const wire::Call& call, bool detached) {
  return {"cancelled", fmt::format("{}: interrupted", wire::call_name(call)),
          detached ? "it goes on; `chimera jobs` shows how far it is"
                   : "the daemon gives it up, unless it was through already"};
}

Outcome jobs(const Invocation& run) {
  const auto event = run.client.call(wire::Modules{}, kAnswerWait);
  if (!event.ok()) return event.error();
  const Json& listed = event->body["jobs"];
  std::vector<std::vector<std::string>> rows;
  for (const Json& job : listed) {
    if (run.out.json()) run.out.object(job);
    std::string more = seconds_left(job);
    if (const auto epoch = job["epoch"].natural()) more = fmt::format("epoch {}", *epoch);
    if (job.contains("error")) more = job["error"].value("message", "");
    rows.push_back({job.value("id", ""), job.value("call", ""), job.value("phase", ""),
                    part_done(job), fmt::format("{:.1f}", job.value("seconds", 0.0)), names_of(job),
                    more});
  }
  if (run.out.json()) return 0;
  if (rows.empty()) {
    run.out.line("Nothing is being loaded, and nothing was since the daemon started.");
  } else {
    run.out.table({"job", "call", "phase", "done", "seconds", "modules", ""}, rows, {3, 4});
  }
  return 0;
}

}  // namespace

std::string part_done(const Json& job) {
  const bool reading = job.value("phase", "") == "reading" && job.value("bytes_total", 0.0) > 0.0;
  return reading ? fmt::format("{:.0f} %", std::floor(100.0 * share_of(job))) : "";
}

void add_waiting_options(po::options_description& options) {
  auto add = options.add_options();
  add("no-wait", po::bool_switch(), "print the job and leave it to the daemon (see `jobs`)");
  add("detach", po::bool_switch(), "wait, but let it go on when this program is ended");
}

wire::Waiting waiting_of(const Invocation& run) {
  wire::Waiting out;
  out.wait = !run.options["no-wait"].as<bool>();
  out.detach = run.options["detach"].as<bool>();
  out.progress = out.wait && run.out.error_terminal() && !run.out.json();
  return out;
}

std::variant<client::Event, Error> wait_for(const Invocation& run, const wire::Call& call,
                                            const wire::Waiting& waiting) {
  const auto id = run.client.send(call);
  if (!id.ok()) return Error(id.error());
  ProgressLine line(waiting.progress);
  while (true) {
    auto event = run.client.receive_for(*id, wire::endpoint_of(call), {}, interrupted);
    if (!event.ok() && interrupted()) return interrupted_error(call, waiting.detach);
    if (!event.ok()) return Error(event.error());
    if (event->is_error()) return Error(event->error());
    if (event->is_final()) return std::move(*event);
    line.show(event->body["job"]);
  }
}

void add_job_commands(std::vector<Command>& commands) {
  commands.push_back({"jobs", "", "what is being loaded, and what was", 0, 0, {}, jobs});
}

}  // namespace chimera::cli
