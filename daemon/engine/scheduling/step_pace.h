// StepPace: how much of the waiting prompts the next step may take, so that it ends in time.
//
// A step's cost is taken as constant + slope x units. A unit is one row at the start of a context;
// a row further back costs more, because its attention looks at all positions before it. Constant
// and slope are fitted to the steps that ran, older ones forgotten, so that they follow the
// machine, its neighbours and the model. A step starts small and at most doubles what was seen to
// work.
//
// Where the constant alone takes most of the target (weights that are read whole for any chunk of a
// prompt), smaller chunks would slow prompts down and help nobody: then a step takes as many rows
// as make up for it, up to `most_rows`.
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

  /// `target_ms`: what a step may take. `most_rows`: of prompts in one step. `row_positions`: how
  /// many positions of attention cost as much as the rest of a row.
  StepPace(double target_ms, int64_t most_rows, double row_positions);
  /// `row_positions` of a model, from its multiply-adds.
  static double row_positions(const ModelConfig& config);

  /// Units of `rows` rows of one sequence from `position` on.
  double units(int64_t rows, int64_t position) const;
  /// The most rows from `position` on that cost no more than `units`.
  int64_t rows(double units, int64_t position) const;

  /// Units that prompts may take in the next step beside `decode_units` of decoding.
  double allowance(double decode_units) const;
  /// A step of `units` in all, prompts among them, took `ms`.
  void record(double units, double ms);

 private:
  /// Milliseconds of a step without a unit, and of each unit.
  struct Cost {
    double constant = 0.0, slope = 0.0;
  };
  Cost cost() const;

  const double target_ms_;
  const double most_units_;
  const double row_positions_;
  // Sums over the steps recorded, each weighing less than the one after it.
  double weight_ = 0.0, x_ = 0.0, y_ = 0.0, xx_ = 0.0, xy_ = 0.0;
  double largest_ = 0.0;  // units of the largest step lately
};

}  // namespace chimera
