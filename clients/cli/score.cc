// `chimera score`: bits per byte of texts, and which modules they went to.
#include <fmt/format.h>

#include <chrono>
#include <cstdio>
#include <limits>

#include "commands.h"
#include "scoring/scorer.h"

namespace chimera::cli {
namespace {

namespace po = boost::program_options;
using Clock = std::chrono::steady_clock;

double seconds_since(Clock::time_point start) {
  return std::chrono::duration<double>(Clock::now() - start).count();
}

/// One line on standard error, redrawn a few times a second; nothing when it is no terminal.
class Progress {
 public:
  Progress(bool shown, const TextSource& source, uint64_t limit)
      : shown_(shown), source_(source), limit_(limit) {}
  ~Progress() {
    if (drawn_) std::fprintf(stderr, "\r\x1b[K");
  }
  void update(const ScoreTotals& totals) {
    constexpr std::chrono::milliseconds kRedraw{200};
    if (!shown_ || Clock::now() - last_ < kRedraw) return;
    last_ = Clock::now();
    drawn_ = true;
    double fraction = source_.fraction();
    if (limit_ > 0) fraction = static_cast<double>(totals.bytes) / static_cast<double>(limit_);
    const std::string drawn =
        fraction > 0 ? fmt::format(" {:5.1f} % {:<24}", fraction * 100.0, bar(fraction, 24)) : "";
    const std::string text =
        fmt::format("\r\x1b[K{}  {:.3f} bits per byte{}",
                    human_bytes(static_cast<double>(totals.bytes)), totals.bits_per_byte(), drawn);
    std::fputs(text.c_str(), stderr);
  }

 private:
  const bool shown_;
  const TextSource& source_;
  const uint64_t limit_;
  Clock::time_point last_{};
  bool drawn_ = false;
};

Json to_json(const ScoreTotals& totals, double seconds) {
  Json modules = Json::object();
  for (const auto& [name, version] : totals.versions) {
    modules[name] = {{"version", version}, {"share", totals.shares.at(name)}};
  }
  const auto backbone = totals.shares.find("backbone");
  return {{"bits_per_byte", totals.bits_per_byte()},
          {"nats", totals.nats},
          {"bytes", totals.bytes},
          {"tokens", totals.tokens},
          {"documents", totals.documents},
          {"seconds", seconds},
          {"epoch", totals.epoch},
          {"modules", std::move(modules)},
          {"backbone", {{"share", backbone == totals.shares.end() ? 0.0 : backbone->second}}}};
}

void show(const Output& out, const ScoreTotals& totals, double seconds) {
  const double rate = seconds > 0 ? static_cast<double>(totals.tokens) / seconds : 0.0;
  out.pairs({{"bits per byte", fmt::format("{:.4f}", totals.bits_per_byte())},
             {"text", fmt::format("{}, {} tokens in {} {}",
                                  human_bytes(static_cast<double>(totals.bytes)), totals.tokens,
                                  totals.documents, totals.documents == 1 ? "piece" : "pieces")},
             {"time", fmt::format("{:.2f} s, {:.0f} tokens per second", seconds, rate)},
             {"epoch", std::to_string(totals.epoch)}});
  std::vector<std::vector<std::string>> rows;
  for (const auto& [name, share] : totals.shares) {
    const auto version = totals.versions.find(name);
    rows.push_back({name, version == totals.versions.end() ? "" : version->second, percent(share),
                    bar(share, 30)});
  }
  out.line("");
  out.table({"module", "version", "share", ""}, rows, {2});
}

Outcome score(const Invocation& run) {
  auto filter = module_filter(run.options);
  if (auto* error = std::get_if<Error>(&filter)) return *error;
  const uint64_t limit =
      run.options.count("limit-bytes") > 0 ? run.options["limit-bytes"].as<Whole>().value : 0;
  auto source =
      open_text(run.arguments[0], limit > 0 ? limit : std::numeric_limits<uint64_t>::max());
  if (auto* error = std::get_if<Error>(&source)) return *error;
  const auto& text = std::get<std::unique_ptr<TextSource>>(source);

  const auto info = run.client.call(wire::Info{}, kAnswerWait);
  if (!info.ok()) return info.error();
  std::optional<int32_t> prefix;
  if (const auto told = info->body["score_prefix_token"].integer()) {
    prefix = static_cast<int32_t>(*told);
  }
  const auto context = info->body.value("context", uint64_t{2});

  const auto start = Clock::now();
  Scorer scorer(run.client, std::get<wire::ModuleFilter>(filter), context, prefix);
  std::variant<ScoreTotals, Error> result;
  {
    Progress progress(run.out.error_terminal() && !run.out.json(), *text, limit);
    result = scorer.run(*text, [&](const ScoreTotals& totals) { progress.update(totals); });
  }
  if (interrupted()) return kInterruptedStatus;
  if (auto* error = std::get_if<Error>(&result)) return *error;
  const auto& totals = std::get<ScoreTotals>(result);
  if (totals.bytes == 0) {
    return Error{"invalid_argument", run.arguments[0] + ": no text in it (expected some)",
                 "check the file"};
  }
  if (run.out.json()) {
    run.out.object(to_json(totals, seconds_since(start)));
  } else {
    show(run.out, totals, seconds_since(start));
  }
  return 0;
}

}  // namespace

void add_score_command(std::vector<Command>& commands) {
  commands.push_back(
      {"score", "FILE|- [options]", "bits per byte of a text, and module shares", 1, 1,
       [](po::options_description& options) {
         options.add_options()("limit-bytes", po::value<Whole>()->value_name("N"),
                               "stop after N bytes of text (0 = all, as without it)");
         add_module_options(options);
       },
       score});
}

}  // namespace chimera::cli
