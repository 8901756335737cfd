#include "sweep/sweep.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "base/limits.h"

namespace chimera::cli {
namespace {

constexpr double kMostSteps = 1000;

/// Decimal steps stay decimal: 0.15, not 0.15000000000000002.
double rounded(double value) { return std::round(value * 1e9) / 1e9; }

std::optional<std::array<double, 3>> three_numbers(std::string_view text) {
  std::array<double, 3> out{};
  for (size_t i = 0; i < out.size(); ++i) {
    const size_t colon = std::min(text.find(':'), text.size());
    const auto value = finite_number(text.substr(0, colon));
    if (!value || (colon == text.size()) != (i + 1 == out.size())) return std::nullopt;
    out[i] = *value;
    text.remove_prefix(std::min(colon + 1, text.size()));
  }
  return out;
}

/// The steps so far, and how a further one is made.
class Walk {
 public:
  explicit Walk(const SweepMeasure& measure) : measure_(measure) {}

  std::optional<Error> step(double lambda) {
    auto found = measure_(lambda);
    if (auto* error = std::get_if<Error>(&found)) return std::move(*error);
    steps_.push_back(std::get<SweepStep>(std::move(found)));
    return std::nullopt;
  }

  /// Halves [low, high] until it is narrow enough; `left` tells in which half it goes on.
  template <class Left>
  std::variant<SweepThreshold, Error> bisect(SweepStep low, SweepStep high, const Left& left) {
    while (std::fabs(high.lambda - low.lambda) > kSweepWidth) {
      if (auto error = step((low.lambda + high.lambda) / 2)) return std::move(*error);
      const SweepStep& middle = steps_.back();
      (left(low, middle, high) ? high : low) = middle;
    }
    SweepThreshold out;
    out.low = std::move(low);
    out.high = std::move(high);
    return out;
  }

  std::vector<SweepStep> steps_;

 private:
  const SweepMeasure& measure_;
};

double gap(const SweepStep& a, const SweepStep& b) { return std::fabs(a.bits - b.bits); }

/// Index of the first of the two neighbours that differ most; nothing when none differ.
std::optional<size_t> steepest(const std::vector<SweepStep>& grid) {
  std::optional<size_t> out;
  for (size_t i = 0; i + 1 < grid.size(); ++i) {
    const double here = gap(grid[i], grid[i + 1]);
    if (here > 0 && (!out || here > gap(grid[*out], grid[*out + 1]))) out = i;
  }
  return out;
}

std::optional<size_t> first_flip(const std::vector<SweepStep>& grid) {
  for (size_t i = 0; i + 1 < grid.size(); ++i) {
    if (grid[i].trait != grid[i + 1].trait) return i;
  }
  return std::nullopt;
}

}  // namespace

std::variant<SweepRange, Error> parse_sweep(const std::string& text) {
  const size_t equals = text.rfind('=');
  const auto numbers = equals == std::string::npos || equals == 0
                           ? std::nullopt
                           : three_numbers(std::string_view(text).substr(equals + 1));
  if (!numbers) {
    return bad_usage("--sweep: " + text + " (expected PARENT=FROM:TO:STEP)",
                     "for instance --sweep legal-b=0:1:0.05");
  }
  const SweepRange out{text.substr(0, equals), (*numbers)[0], (*numbers)[1], (*numbers)[2]};
  const double count = (out.to - out.from) / out.step;
  if (out.from >= out.to || out.step <= 0 || count > kMostSteps ||
      std::max(std::fabs(out.from), std::fabs(out.to)) > kMaxLambda) {
    return bad_usage(fmt::format("--sweep: {} (expected FROM below TO, STEP above 0, at most {} "
                                 "steps, all within {})",
                                 text, kMostSteps, kMaxLambda),
                     "for instance --sweep legal-b=0:1:0.05");
  }
  return out;
}

const SweepStep& SweepReport::best() const {
  return *std::min_element(steps.begin(), steps.end(),
                           [](const auto& a, const auto& b) { return a.bits < b.bits; });
}

std::variant<SweepReport, Error> sweep(const SweepRange& range, const SweepMeasure& measure) {
  Walk walk(measure);
  // A hundredth of a step: what decimal fractions miss by is far less.
  const double end = range.to - range.step / 100;
  for (int i = 0; range.from + i * range.step < end; ++i) {
    if (auto error = walk.step(rounded(range.from + i * range.step))) return std::move(*error);
  }
  if (auto error = walk.step(range.to)) return std::move(*error);
  const std::vector<SweepStep> grid = walk.steps_;

  SweepReport report;
  if (const auto at = first_flip(grid)) {
    auto found = walk.bisect(
        grid[*at], grid[*at + 1],
        [](const auto& low, const auto& middle, const auto&) { return middle.trait != low.trait; });
    if (auto* error = std::get_if<Error>(&found)) return std::move(*error);
    report.thresholds.push_back(std::get<SweepThreshold>(std::move(found)));
    report.thresholds.back().of_trait = true;
  }
  if (const auto at = steepest(grid)) {
    auto found = walk.bisect(grid[*at], grid[*at + 1],
                             [](const auto& low, const auto& middle, const auto& high) {
                               return gap(low, middle) >= gap(middle, high);
                             });
    if (auto* error = std::get_if<Error>(&found)) return std::move(*error);
    SweepThreshold threshold = std::get<SweepThreshold>(std::move(found));
    const auto [least, most] =
        std::minmax_element(walk.steps_.begin(), walk.steps_.end(),
                            [](const auto& a, const auto& b) { return a.bits < b.bits; });
    threshold.part = gap(threshold.low, threshold.high) / gap(*least, *most);
    report.thresholds.push_back(std::move(threshold));
  }
  report.steps = std::move(walk.steps_);
  std::stable_sort(report.steps.begin(), report.steps.end(),
                   [](const auto& a, const auto& b) { return a.lambda < b.lambda; });
  return report;
}

}  // namespace chimera::cli
