// `chimera blend --sweep`: what is measured at each step, and how it is shown.
#include <fmt/format.h>

#include <cstdio>
#include <limits>

#include "change.h"
#include "scoring/scorer.h"
#include "sweep/sweep.h"

namespace chimera::cli {
namespace {

namespace po = boost::program_options;

// Long enough for a trait to show, short enough for every step.
constexpr uint64_t kAnswerTokens = 64;

/// A sweep as the command line asks for it.
struct SweepWish {
  SweepRange range;
  std::vector<std::string> files;
  uint64_t limit = std::numeric_limits<uint64_t>::max();  // bytes of each file
  std::optional<std::string> ask;
  std::optional<Trait> trait;
  uint64_t answer_tokens = kAnswerTokens;
  std::string plot;
  bool keep_best = false;
};

std::optional<Error> take_trait(const po::variables_map& options, SweepWish& wish) {
  if (options.count("ask") != options.count("trait")) {
    return bad_usage(fmt::format("--{}: found without --{} (expected both or none)",
                                 options.count("ask") > 0 ? "ask" : "trait",
                                 options.count("ask") > 0 ? "trait" : "ask"),
                     "the trait is a regular expression that the answer to the prompt matches");
  }
  if (options.count("ask") == 0) return std::nullopt;
  wish.ask = options["ask"].as<std::string>();
  auto trait = Trait::compile(options["trait"].as<std::string>());
  if (auto* error = std::get_if<Error>(&trait)) return std::move(*error);
  wish.trait = std::get<Trait>(std::move(trait));
  return std::nullopt;
}

std::variant<SweepWish, Error> sweep_wish(const po::variables_map& options) {
  auto range = parse_sweep(options["sweep"].as<std::string>());
  if (auto* error = std::get_if<Error>(&range)) return std::move(*error);
  SweepWish wish;
  wish.range = std::get<SweepRange>(std::move(range));
  if (options.count("score") == 0) {
    return bad_usage("--score: none (expected one or more files of text)",
                     "--sweep scores them at every step");
  }
  wish.files = options["score"].as<std::vector<std::string>>();
  if (options.count("limit-bytes") > 0) {
    const uint64_t limit = options["limit-bytes"].as<Whole>().value;
    if (limit > 0) wish.limit = limit;
  }
  if (options.count("max-tokens") > 0) {
    wish.answer_tokens = options["max-tokens"].as<Whole>().value;
  }
  if (options.count("plot") > 0) wish.plot = options["plot"].as<std::string>();
  wish.keep_best = options["keep-best"].as<bool>();
  if (auto error = take_trait(options, wish)) return std::move(*error);
  return wish;
}

/// Blends, scores and asks; and puts the coefficients back.
class Sweeper {
 public:
  Sweeper(const Invocation& run, const SweepWish& wish)
      : run_(run), wish_(wish), name_(run.arguments[0]) {}

  /// What the daemon has to be asked before.
  std::optional<Error> begin() {
    const auto listed = run_.client.call(wire::Modules{}, kAnswerWait);
    if (!listed.ok()) return Error(listed.error());
    for (const Json& module : listed->body["modules"]) {
      if (module.value("name", "") != name_ || module.value("state", "") == "retiring") continue;
      for (const auto& [parent, value] : module["lambda"].items()) {
        before_[parent] = value.number().value_or(0.0);
      }
    }
    if (before_.count(wish_.range.parent) == 0) {
      std::string parents;
      for (const auto& [parent, value] : before_) parents += (parents.empty() ? "" : ", ") + parent;
      return Error("not_found",
                   fmt::format("--sweep: parent {} of {} (expected one of its parents{}{})",
                               wish_.range.parent, name_, parents.empty() ? "" : ": ", parents),
                   "`chimera modules` shows what an assembly is made of");
    }
    const auto info = run_.client.call(wire::Info{}, kAnswerWait);
    if (!info.ok()) return Error(info.error());
    if (const auto told = info->body["score_prefix_token"].integer()) {
      prefix_ = static_cast<int32_t>(*told);
    }
    context_ = info->body.value("context", uint64_t{2});
    return std::nullopt;
  }

  std::variant<SweepStep, Error> measure(double lambda) {
    if (interrupted() || run_.out.lost()) return stopped();
    SweepStep step;
    step.lambda = lambda;
    if (auto error = blend({{wish_.range.parent, lambda}}, &step.epoch)) return std::move(*error);
    if (auto error = score(step)) return std::move(*error);
    if (auto error = ask(step)) return std::move(*error);
    ++done_;
    show(step);
    return step;
  }

  std::optional<Error> blend(const std::map<std::string, double>& lambda, uint64_t* epoch) {
    const auto done = run_.client.call(wire::Blend{name_, lambda});
    if (!done.ok()) return Error(done.error());
    if (epoch != nullptr) *epoch = done->body.value("epoch", uint64_t{0});
    return std::nullopt;
  }

  const std::map<std::string, double>& before() const { return before_; }

 private:
  static Error stopped() { return {"cancelled", "sweep: interrupted", "λ is as it was before"}; }

  std::optional<Error> score(SweepStep& step) {
    ScoreTotals all;
    double tokens = 0.0;
    for (const std::string& file : wish_.files) {
      auto source = open_text(file, wish_.limit);
      if (auto* error = std::get_if<Error>(&source)) return std::move(*error);
      Scorer scorer(run_.client, {}, context_, prefix_);
      auto result = scorer.run(*std::get<std::unique_ptr<TextSource>>(source), [](const auto&) {});
      if (interrupted() || run_.out.lost()) return stopped();
      if (auto* error = std::get_if<Error>(&result)) return std::move(*error);
      const auto& totals = std::get<ScoreTotals>(result);
      if (totals.bytes == 0) {
        return Error("invalid_argument", file + ": no text in it (expected some)",
                     "check the file");
      }
      step.file_bits.push_back(totals.bits_per_byte());
      all.nats += totals.nats;
      all.bytes += totals.bytes;
      const auto weight = static_cast<double>(totals.tokens);
      tokens += weight;
      for (const auto& [module, share] : totals.shares) step.shares[module] += share * weight;
    }
    for (auto& [module, share] : step.shares) share /= std::max(tokens, 1.0);
    step.bits = all.bits_per_byte();
    return std::nullopt;
  }

  std::optional<Error> ask(SweepStep& step) {
    if (!wish_.ask) return std::nullopt;
    wire::Generate request;
    request.prompt = *wish_.ask;
    request.temperature = 0.0;
    request.max_tokens = static_cast<int64_t>(wish_.answer_tokens);
    const auto answer = run_.client.generate(request, {}, interrupted);
    if (interrupted() || run_.out.lost()) return stopped();
    if (!answer.ok()) return Error(answer.error());
    step.answer = answer->text;
    const auto found = wish_.trait->match(step.answer);
    if (const auto* error = std::get_if<Error>(&found)) return *error;
    step.trait = std::get<bool>(found);
    return std::nullopt;
  }

  void show(const SweepStep& step) {
    if (run_.out.json()) {
      Json out = {{"event", "step"},         {"lambda", step.lambda}, {"bits_per_byte", step.bits},
                  {"files", Json::object()}, {"shares", step.shares}, {"epoch", step.epoch}};
      for (size_t i = 0; i < wish_.files.size(); ++i) {
        out["files"][wish_.files[i]] = step.file_bits[i];
      }
      if (step.trait) out["trait"] = *step.trait;
      if (step.trait) out["answer"] = step.answer;
      run_.out.object(out);
    } else if (run_.out.error_terminal()) {
      std::fputs(fmt::format("\r\x1b[K{} steps  λ {:g}  {:.4f} bits per byte", done_, step.lambda,
                             step.bits)
                     .c_str(),
                 stderr);
    }
  }

  const Invocation& run_;
  const SweepWish& wish_;
  const std::string name_;
  std::map<std::string, double> before_;
  std::optional<int32_t> prefix_;
  size_t context_ = 2;
  int done_ = 0;
};

}  // namespace

Outcome run_sweep(const Invocation& run) {
  if (run.arguments.size() > 1) {
    return bad_usage("PARENT: " + run.arguments[1] + " (expected none beside --sweep)", "");
  }
  const auto read = sweep_wish(run.options);
  if (const auto* error = std::get_if<Error>(&read)) return *error;
  const auto& wish = std::get<SweepWish>(read);
  Sweeper sweeper(run, wish);
  if (auto error = sweeper.begin()) return std::move(*error);
  put_back_at_the_end();
  const auto found = sweep(wish.range, [&](double lambda) { return sweeper.measure(lambda); });
  if (!run.out.json() && run.out.error_terminal()) std::fputs("\r\x1b[K", stderr);
  const auto* report = std::get_if<SweepReport>(&found);
  const bool stopped = clear_interrupt();
  // Whatever happened, nobody is left with the last step of a sweep.
  const bool best = report != nullptr && wish.keep_best;
  const auto restored = best ? sweeper.blend({{wish.range.parent, report->best().lambda}}, nullptr)
                             : sweeper.blend(sweeper.before(), nullptr);
  if (restored) {
    return Error(restored->code, "sweep: λ could not be put back: " + restored->message,
                 "`chimera blend` sets it");
  }
  if (stopped) return kInterruptedStatus;
  if (report == nullptr) return std::get<Error>(found);
  show_sweep(run.out, *report, wish.range, run.arguments[0], wish.files);
  if (wish.plot.empty()) return 0;
  if (auto error = write_sweep_plot(*report, wish.range, run.arguments[0], wish.plot)) {
    return std::move(*error);
  }
  return 0;
}

void add_sweep_options(po::options_description& options) {
  auto add = options.add_options();
  add("sweep", po::value<std::string>()->value_name("P=A:B:STEP"),
      "walk the coefficient of parent P from A to B, find where most changes, go back");
  add("score", po::value<std::vector<std::string>>()->multitoken()->value_name("FILE..."),
      "texts to score at every step of a sweep");
  add("limit-bytes", po::value<Whole>()->value_name("N"), "N bytes of each text (0 = all)");
  add("ask", po::value<std::string>()->value_name("PROMPT"), "a prompt to answer at every step");
  add("trait", po::value<std::string>()->value_name("REGEX"), "what is looked for in the answer");
  add("max-tokens", po::value<Whole>()->value_name("N"), "length of the answer (64)");
  add("plot", po::value<std::string>()->value_name("FILE.svg"), "a picture of the sweep");
  add("keep-best", po::bool_switch(),
      "leave it at the fewest bits per byte, not as it was before the sweep");
}

}  // namespace chimera::cli
