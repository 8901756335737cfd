#include "daemon/engine/scheduling/step_pace.h"

#include <gtest/gtest.h>

#include <algorithm>

namespace chimera {
namespace {

constexpr double kTarget = 50.0;
constexpr int64_t kMost = 512;

/// A machine that takes constant + slope x units for a step; how the pace settles on it.
struct Machine {
  double constant = 0.0, slope = 0.0;
  double ms(double units) const { return constant + slope * units; }
  /// Units of the last of `steps`, and the longest of them from `from` on.
  double settle(StepPace& pace, int steps, int from = 0, double* longest = nullptr) const {
    double units = 0.0;
    for (int i = 0; i < steps; ++i) {
      units = pace.allowance(0.0);
      // Prompts end where they end: not every step is filled.
      const double used = i % 5 == 4 ? units * 0.6 : units;
      if (longest != nullptr && i >= from) *longest = std::max(*longest, ms(used));
      pace.record(used, ms(used));
    }
    return units;
  }
};

TEST(StepPace, SettlesOnTheTargetWhateverTheMachine) {
  for (const Machine machine : {Machine{0.0, 0.25}, Machine{5.0, 0.5}, Machine{20.0, 1.0}}) {
    StepPace pace(kTarget, kMost, 1000.0);
    double longest = 0.0;
    const double units = machine.settle(pace, 60, 10, &longest);
    EXPECT_NEAR(machine.ms(units), kTarget, 2.0) << machine.slope;
    EXPECT_LE(longest, kTarget * 1.1) << machine.slope;
  }
}

TEST(StepPace, StartsSmallAndDoublesAtMost) {
  StepPace pace(kTarget, kMost, 1000.0);
  double before = pace.allowance(0.0);
  EXPECT_LE(before, 32.0);
  for (int i = 0; i < 10; ++i) {
    pace.record(before, 0.001 * before);
    const double next = pace.allowance(0.0);
    EXPECT_LE(next, 2.0 * before);
    before = next;
  }
  EXPECT_EQ(before, static_cast<double>(kMost));
}

TEST(StepPace, NeverLessThanSomebodyComingForwardNorMoreThanAChunk) {
  StepPace slow(kTarget, kMost, 1000.0);
  EXPECT_EQ((Machine{0.0, 100.0}.settle(slow, 40)), StepPace::kLeast);
  StepPace fast(kTarget, 100, 1000.0);
  EXPECT_EQ((Machine{0.0, 1e-3}.settle(fast, 40)), 100.0);
  EXPECT_EQ(StepPace(kTarget, 8, 1000.0).allowance(0.0), 8.0) << "a chunk of less than the least";
}

TEST(StepPace, SmallChunksAreNotWorthTheirConstant) {
  // 600 ms for the weights and a millisecond a row: chunks of 16 rows would cost eight times more.
  StepPace pace(kTarget, kMost, 1000.0);
  EXPECT_GE((Machine{600.0, 1.0}.settle(pace, 60)), 400.0);
}

TEST(StepPace, ALonePromptTakesLongerStepsAndAStreamBesideItEndsThat) {
  StepPace pace(kTarget, 128, 1000.0, kMost);
  const Machine fast{10.0, 0.25};
  fast.settle(pace, 40);
  EXPECT_EQ(pace.allowance(0.0), 128.0);
  for (int i = 0; i < 10; ++i) {
    const double units = pace.allowance(0.0, /*lone=*/true);
    pace.record(units, fast.ms(units));
  }
  EXPECT_EQ(pace.allowance(0.0, true), static_cast<double>(kMost)) << "138 ms of 200";
  EXPECT_EQ(pace.allowance(0.0), 128.0);

  StepPace slow(kTarget, 128, 1000.0, 4096);
  const Machine heavy{300.0, 5.0};  // weights that are read in 300 ms
  heavy.settle(slow, 40);
  const double beside = slow.allowance(0.0);
  EXPECT_NEAR(beside, 60.0, 6.0) << "as many rows as cost what the weights do";
  for (int i = 0; i < 20; ++i) {
    const double units = slow.allowance(0.0, true);
    slow.record(i % 5 == 4 ? units * 0.6 : units, heavy.ms(i % 5 == 4 ? units * 0.6 : units));
  }
  EXPECT_NEAR(slow.allowance(0.0, true), 240.0, 24.0) << "a fifth of the step for the weights";
}

TEST(StepPace, FollowsAMachineThatGetsANeighbour) {
  StepPace pace(kTarget, kMost, 1000.0);
  Machine{2.0, 0.2}.settle(pace, 40);
  const Machine shared{4.0, 0.6};
  EXPECT_NEAR(shared.ms(shared.settle(pace, 60)), kTarget, 4.0);
}

TEST(StepPace, OneLateStepDoesNotDecide) {
  StepPace pace(kTarget, kMost, 1000.0);
  const Machine machine{0.0, 0.25};
  const double before = machine.settle(pace, 40);
  pace.record(before, 5000.0);
  machine.settle(pace, 10);
  EXPECT_GE(pace.allowance(0.0), before * 0.5);
}

TEST(StepPace, WhereStepsScatterNearlyAllOfThemKeepToTheTarget) {
  for (const double spread : {0.05, 0.1, 0.2}) {
    StepPace pace(kTarget, kMost, 1000.0);
    const Machine machine{4.0, 0.25};
    uint32_t random = 1;
    constexpr int kSteps = 2000, kSettled = 100;
    int late = 0;
    double sum = 0.0;
    for (int i = 0; i < kSteps; ++i) {
      random = random * 1664525u + 1013904223u;
      const double noise = static_cast<double>(random >> 8) * 0x1p-23 - 1.0;  // in [-1, 1)
      const double units = pace.allowance(0.0) * (i % 5 == 4 ? 0.6 : 1.0);
      const double ms = machine.ms(units) * (1.0 + spread * noise);
      pace.record(units, ms);
      if (i < kSettled) continue;
      late += ms > kTarget ? 1 : 0;
      sum += ms;
    }
    EXPECT_LE(late, (kSteps - kSettled) / 50) << spread;
    // A fifth of the steps are of 0.6 of the units.
    EXPECT_GE(sum / (kSteps - kSettled), (1.0 - 2.0 * spread) * 0.9 * kTarget) << spread;
  }
}

TEST(StepPace, RowsFurtherBackCostMore) {
  const StepPace pace(kTarget, kMost, 1000.0);
  EXPECT_NEAR(pace.units(1, 0), 1.0, 1e-3);
  EXPECT_NEAR(pace.units(1, 1000), 2.0, 1e-3);
  EXPECT_EQ(pace.rows(0.0, 500), 0);
  EXPECT_EQ(pace.rows(-3.0, 500), 0);
  for (const int64_t position : {0, 100, 16000}) {
    for (const int64_t rows : {1, 16, 300}) {
      EXPECT_EQ(pace.rows(pace.units(rows, position), position), rows) << position;
    }
  }
  // Decoding takes its part of the step.
  StepPace busy(kTarget, kMost, 1000.0);
  Machine{0.0, 0.25}.settle(busy, 40);
  EXPECT_NEAR(busy.allowance(0.0) - busy.allowance(50.0), 50.0, 1e-6);
}

}  // namespace
}  // namespace chimera
