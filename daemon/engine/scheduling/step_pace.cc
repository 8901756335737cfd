#include "daemon/engine/scheduling/step_pace.h"

#include <algorithm>
#include <cmath>

namespace chimera {
namespace {

// A step weighs half as much as the sixth after it: fast enough for a neighbour that comes and
// goes, slow enough that one late step does not decide.
constexpr double kForget = 0.89;
// Units of the first step: at 4 ms a row, which is slow, it ends in an eighth of a second.
constexpr double kFirst = 32.0;
// A step that took longer than this many times what was expected met something else than its work.
constexpr double kOutlier = 4.0;
// Of 100 steps one is further off upwards than this many times what they are off on average, where
// it is noise (2.33 standard deviations, each 1.25 times the mean of what is off).
constexpr double kLate = 2.9;
// What a step is off by counts up to this part of what was expected: more is a change of the
// machine, which the fit follows, and no scatter.
constexpr double kMostOff = 0.25;
// Rows of a lone prompt cost this many times the constant, which is a fifth of the step then.
constexpr double kLoneShare = 4.0;
// Relative spread (variance over squared mean) of units from which on a slope can be told.
constexpr double kSpread = 1e-3;
// A multiply-add of attention against one of a matrix product: keys are read for one query at a
// time, weights for many rows.
constexpr double kAttentionCost = 2.0;

}  // namespace

StepPace::StepPace(double target_ms, int64_t most_rows, double row_positions, int64_t lone_rows)
    : target_ms_(target_ms),
      most_units_(static_cast<double>(most_rows)),
      lone_units_(static_cast<double>(std::max(most_rows, lone_rows))),
      row_positions_(row_positions) {}

double StepPace::row_positions(const ModelConfig& c) {
  const auto d = [](int64_t n) { return static_cast<double>(n); };
  const double attention = d(c.num_heads) * d(c.head_dim + c.v_head_dim);
  // Query and output, keys and values, the experts of a token with their three matrices.
  const double projections =
      d(c.hidden_size) * (attention + d(c.num_kv_heads) * d(c.head_dim + c.v_head_dim));
  const double feed_forward =
      3.0 * d(c.hidden_size) *
      (d(c.num_experts_per_tok) * d(c.intermediate_size) + d(c.shared_intermediate_size));
  if (attention <= 0.0) return 1.0;
  return std::max(1.0, (projections + feed_forward) / (attention * kAttentionCost));
}

double StepPace::units(int64_t rows, int64_t position) const {
  const auto n = static_cast<double>(rows);
  return n + n * (static_cast<double>(position) + n / 2.0) / row_positions_;
}

int64_t StepPace::rows(double units, int64_t position) const {
  // The positive root of units() = units.
  const double b = 1.0 + static_cast<double>(position) / row_positions_;
  const double n =
      row_positions_ * (std::sqrt(b * b + 2.0 * std::max(units, 0.0) / row_positions_) - b);
  return static_cast<int64_t>(n + 1e-6);
}

StepPace::Cost StepPace::cost() const {
  const double mean_x = x_ / weight_;
  const double mean_y = y_ / weight_;
  const double most = mean_y / mean_x;  // all of it
  const double variance = xx_ / weight_ - mean_x * mean_x;
  if (variance < kSpread * mean_x * mean_x) return {0.0, most};
  const double covariance = xy_ / weight_ - mean_x * mean_y;
  const double slope = std::clamp(covariance / variance, most * 1e-3, most);
  return {mean_y - slope * mean_x, slope};
}

double StepPace::scatter() const { return std::min(kLate * off_ / weight_, target_ms_ / 2.0); }

double StepPace::allowance(double decode_units, bool lone) const {
  const double most = lone ? lone_units_ : most_units_;
  if (weight_ == 0.0) return std::min(kFirst, most);
  const Cost c = cost();
  const double target = lone ? kLoneTargets * target_ms_ : target_ms_ - scatter();
  const double in_time = (target - c.constant) / c.slope;
  // From half the target on the constant decides: as many units as cost what it does.
  const bool decides = c.constant > target_ms_ / 2.0;
  const double worthwhile = decides ? (lone ? kLoneShare : 1.0) * c.constant / c.slope : 0.0;
  const double known = 2.0 * largest_;
  const double wanted = std::min(std::max(in_time, worthwhile), known) - decode_units;
  return std::min(std::max(wanted, kLeast), most);
}

void StepPace::record(double units, double ms) {
  double off = 0.0;
  if (weight_ > 0.0) {
    const Cost c = cost();
    const double expected = c.constant + c.slope * units;
    ms = std::min(ms, kOutlier * expected);
    off = std::min(std::abs(ms - expected), kMostOff * expected);
  }
  off_ = off_ * kForget + off;
  weight_ = weight_ * kForget + 1.0;
  x_ = x_ * kForget + units;
  y_ = y_ * kForget + ms;
  xx_ = xx_ * kForget + units * units;
  xy_ = xy_ * kForget + units * ms;
  largest_ = std::max(largest_ * kForget, units);
}

}  // namespace chimera
