// StepPace: how much of the waiting prompts the next step may take, so that it ends in time.
//
// A step's cost is taken as constant + slope x units. A unit is one row at the start of a context;
// a row further back costs more, because its attention looks at all positions before it. Constant
// and slope are fitted to the steps that ran, older ones forgotten, so that they follow the
// machine, its neighbours and the model. A step starts small and at most doubles what was seen to
// work.
//
// The target is what nearly every step keeps to, not what they take in the middle: how far steps
// lie from what was expected of them is left free below it, half of the target at most.
//
// Where the constant alone takes most of the target (weights that are read whole for any chunk of a
// prompt), smaller chunks would slow prompts down and help nobody: then a step takes as many rows
// as make up for it, up to `most_rows`.
//
// A prompt that is alone delays nobody who is there: its step may take kLoneTargets times as long,
// up to `lone_rows`, and as many rows as leave the constant a fifth of it. Whoever comes meanwhile
// waits for that step to end.
//
// What runs together never changes what is computed, so none of this shows in anybody's tokens.
//
// Thread safety: none; the engine thread's.
#pragma once

#include <cstdint>

#include "backbone/families/model_config.h"

namespace chimera {

class StepPace {
 public:
  /// Fewest units of prompts in a step, whatever it costs: somebody has to come forward.
  static constexpr double kLeast = 16.0;
  /// Times the target that the step of a lone prompt may take.
  static constexpr double kLoneTargets = 4.0;

  /// `target_ms`: what a step may take. `most_rows`: of prompts in one step. `row_positions`: how
  /// many positions of attention cost as much as the rest of a row. `lone_rows`: `most_rows` of a
  /// prompt that is alone; less than those: those.
  StepPace(double target_ms, int64_t most_rows, double row_positions, int64_t lone_rows = 0);
  /// `row_positions` of a model, from its multiply-adds.
  static double row_positions(const ModelConfig& config);

  /// Units of `rows` rows of one sequence from `position` on.
  double units(int64_t rows, int64_t position) const;
  /// The most rows from `position` on that cost no more than `units`.
  int64_t rows(double units, int64_t position) const;

  /// Units that prompts may take in the next step beside `decode_units` of decoding; `lone`: one
  /// prompt, and nobody else is there.
  double allowance(double decode_units, bool lone = false) const;
  /// A step of `units` in all, prompts among them, took `ms`.
  void record(double units, double ms);

 private:
  /// Milliseconds of a step without a unit, and of each unit.
  struct Cost {
    double constant = 0.0, slope = 0.0;
  };
  Cost cost() const;
  /// Milliseconds by which a step may well be late.
  double scatter() const;

  const double target_ms_;
  const double most_units_;
  const double lone_units_;
  const double row_positions_;
  // Sums over the steps recorded, each weighing less than the one after it.
  double weight_ = 0.0, x_ = 0.0, y_ = 0.0, xx_ = 0.0, xy_ = 0.0;
  double off_ = 0.0;      // of what steps were off, likewise
  double largest_ = 0.0;  // units of the largest step lately
};

}  // namespace chimera
