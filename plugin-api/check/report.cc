#include "check/report.h"

#include "base/json/writer.h"

namespace chimera::check {
namespace {

constexpr size_t kColumns = 80, kIndent = 30;

const char* colour_of(Verdict v) {
  switch (v) {
    case Verdict::kPass:
      return "\033[32m";
    case Verdict::kWarn:
      return "\033[33m";
    case Verdict::kFail:
      return "\033[1;31m";
    default:
      return "\033[2m";
  }
}

/// `text` broken at spaces so that it fits behind the indentation.
std::string wrapped(const std::string& text) {
  constexpr size_t kWidth = kColumns - kIndent;
  std::string out, line;
  size_t at = 0;
  while (at < text.size()) {
    const size_t end = std::min(text.find(' ', at), text.size());
    std::string word = text.substr(at, end - at);
    at = end + 1;
    if (!line.empty() && line.size() + 1 + word.size() > kWidth) {
      out += line + "\n" + std::string(kIndent, ' ');
      line.clear();
    }
    while (word.size() > kWidth) {
      out += word.substr(0, kWidth) + "\n" + std::string(kIndent, ' ');
      word.erase(0, kWidth);
    }
    line += (line.empty() ? "" : " ") + word;
  }
  return out + line;
}

}  // namespace

std::string human_line(const CaseResult& result, bool colour) {
  const Case& c = *result.which;
  const std::string name = std::string(verdict_name(result.finding.verdict));
  const std::string verdict = colour ? colour_of(result.finding.verdict) + name + "\033[0m" : name;
  return fmt::format("{} {:>3} {:<20} {}\n", verdict, fmt::format("{}{}", c.group, c.number),
                     c.name, wrapped(result.finding.text));
}

std::string json_line(const CaseResult& result, uint64_t seed) {
  const Case& c = *result.which;
  return write_json({{"type", "case"},
                     {"case", c.number},
                     {"group", std::string(1, c.group)},
                     {"name", c.name},
                     {"verdict", verdict_name(result.finding.verdict)},
                     {"text", result.finding.text},
                     {"promise", c.promise},
                     {"seconds", result.seconds},
                     {"reproduce", fmt::format("{}:{}", c.number, seed)},
                     {"output", result.output}}) +
         "\n";
}

void Summary::add(const CaseResult& result) {
  int* const counts[] = {&passed, &warned, &failed, &skipped};
  ++*counts[static_cast<size_t>(result.finding.verdict)];
  seconds += result.seconds;
}

bool Summary::conforms() const { return failed == 0 && (warned == 0 || level < Level::kStrict); }

std::string human_summary(const Summary& s, bool colour) {
  const std::string verdict = s.conforms() ? "conforms" : "does not conform";
  const char* paint = colour ? (s.conforms() ? "\033[32m" : "\033[1;31m") : "";
  return fmt::format(
      "\n{}{}{}: {} passed, {} warnings, {} failed, {} skipped; level {}, {:.1f} s\n"
      "seed {}: repeat one case with --reproduce CASE:{}\n",
      paint, verdict, colour ? "\033[0m" : "", s.passed, s.warned, s.failed, s.skipped,
      level_name(s.level), s.seconds, s.seed, s.seed);
}

std::string json_summary(const Summary& s) {
  return write_json({{"type", "summary"},
                     {"library", s.library},
                     {"level", level_name(s.level)},
                     {"seed", s.seed},
                     {"pass", s.passed},
                     {"warn", s.warned},
                     {"fail", s.failed},
                     {"skip", s.skipped},
                     {"conforms", s.conforms()},
                     {"seconds", s.seconds}}) +
         "\n";
}

}  // namespace chimera::check
