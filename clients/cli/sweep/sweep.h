// A sweep over λ: every step of a range is measured, then the steepest change is narrowed down by
// bisection, so that a sharp transition is found.
//
// Thread safety: by the main thread.
#pragma once

#include <cstdint>
#include <functional>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <variant>
#include <vector>

#include "commands.h"

namespace chimera::cli {

/// λ of one parent from `from` to `to`, `step` apart.
struct SweepRange {
  std::string parent;
  double from = 0.0, to = 1.0, step = 0.05;
};
/// "legal-b=0:1:0.05".
std::variant<SweepRange, Error> parse_sweep(const std::string& text);

/// What was found at one λ.
struct SweepStep {
  double lambda = 0.0;
  double bits = 0.0;                     // per byte, over all texts
  std::vector<double> file_bits;         // of each text
  std::map<std::string, double> shares;  // by module and "backbone"
  std::optional<bool> trait;             // whether the answer has it
  std::string answer;
  uint64_t epoch = 0;
};

/// Where something changes most: between two λ that are at most kSweepWidth apart.
struct SweepThreshold {
  bool of_trait = false;  // else of bits per byte
  SweepStep low, high;
  /// Part of all that changes over the range which changes here.
  double part = 1.0;

  double at() const { return (low.lambda + high.lambda) / 2; }
};
inline constexpr double kSweepWidth = 0.001;

struct SweepReport {
  std::vector<SweepStep> steps;  // by λ
  std::vector<SweepThreshold> thresholds;
  /// With the fewest bits per byte. REQUIRES: there are steps.
  const SweepStep& best() const;
};

using SweepMeasure = std::function<std::variant<SweepStep, Error>(double lambda)>;

/// Measures, in the order of the range and then of the bisections; ends at the first error.
std::variant<SweepReport, Error> sweep(const SweepRange& range, const SweepMeasure& measure);

/// A table over λ and the thresholds; as JSON the thresholds and the best step, an object each.
void show_sweep(const Output& out, const SweepReport& report, const SweepRange& range,
                const std::string& module, const std::vector<std::string>& files);
/// Bits per byte, shares of `module` and the trait over λ, as SVG.
std::optional<Error> write_sweep_plot(const SweepReport& report, const SweepRange& range,
                                      const std::string& module, const std::string& path);

/// `chimera blend NAME --sweep …` (sweep_run.cc).
Outcome run_sweep(const Invocation& run);
void add_sweep_options(boost::program_options::options_description& options);

/// Whether a text has a trait.
class Trait {
 public:
  /// A regular expression (PCRE2). Usage error naming the place where it is none.
  static std::variant<Trait, Error> compile(const std::string& expression);
  /// An error when matching takes too long.
  std::variant<bool, Error> match(const std::string& text) const;

 private:
  struct Code;
  std::shared_ptr<const Code> code_;
};

}  // namespace chimera::cli
