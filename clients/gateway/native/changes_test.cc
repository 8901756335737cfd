#include "clients/gateway/native/changes.h"

#include <gtest/gtest.h>

#include <vector>

namespace chimera::gateway::native {
namespace {

Json record(uint64_t epoch, const char* composition, const char* time = "then") {
  return {{"epoch", epoch}, {"composition", composition}, {"time", time}};
}

/// As `epochs` answers.
Json epochs(uint64_t current, const std::vector<Json>& history) {
  Json out = {{"epoch", current}, {"history", Json::array()}};
  for (const Json& one : history) out["history"].push_back(one);
  return out;
}

Json no_modules() { return {{"modules", Json::array()}}; }

Changes begun(const Json& epochs) {
  Changes changes;
  EXPECT_EQ(changes.look(no_modules(), epochs), "");
  return changes;
}

void expect_state(const Changes& changes, uint64_t epoch, const char* composition) {
  EXPECT_EQ(changes.state(), sse("state", {{"daemon", "ok"},
                                           {"epoch", epoch},
                                           {"composition", composition},
                                           {"modules", Json::array()}}));
}

TEST(Changes, AnEpochThatIsRecordedAndNotPublishedIsNotTold) {
  Changes changes = begun(epochs(4, {record(3, "c"), record(4, "d"), record(5, "e")}));
  expect_state(changes, 4, "d");
  // Taken back, and its number is another's.
  EXPECT_EQ(changes.look(no_modules(), epochs(4, {record(3, "c"), record(4, "d")})), "");
  const Json other = record(5, "f");
  EXPECT_EQ(changes.look(no_modules(), epochs(4, {record(4, "d"), other})), "");
  EXPECT_EQ(changes.look(no_modules(), epochs(5, {record(4, "d"), other})), sse("epoch", other));
  expect_state(changes, 5, "f");
}

TEST(Changes, ADaemonThatCountsFromAnOlderStateIsBelieved) {
  for (const uint64_t now : {1, 3}) {
    Changes changes = begun(epochs(3, {record(1, "a"), record(2, "b"), record(3, "c")}));
    std::vector<Json> history;
    for (uint64_t epoch = 1; epoch < now; ++epoch) history.push_back(record(epoch, "old"));
    const Json newest = record(now, "c", "later");  // lower, or the same number anew
    history.push_back(newest);
    EXPECT_EQ(changes.look(no_modules(), epochs(now, history)), sse("epoch", newest)) << now;
    expect_state(changes, now, "c");
    EXPECT_EQ(changes.look(no_modules(), epochs(now, history)), "") << now;
  }
}

TEST(Changes, ForgottenHistoryIsNoOtherHistory) {
  Changes changes = begun(epochs(3, {record(3, "c")}));
  const Json newest = record(9, "i");
  EXPECT_EQ(changes.look(no_modules(), epochs(9, {record(8, "h"), newest})),
            sse("epoch", record(8, "h")) + sse("epoch", newest));
}

}  // namespace
}  // namespace chimera::gateway::native
