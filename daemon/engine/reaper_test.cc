#include "daemon/engine/reaper.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <future>
#include <memory>

namespace chimera {
namespace {

/// Brings its successor when it goes, as streams do that end while others go on.
struct Endless {
  Endless(Reaper* taker, const std::atomic<bool>* more) : reaper(taker), go_on(more) {}
  ~Endless() {
    if (*go_on) reaper->take(std::make_shared<const Endless>(reaper, go_on));
  }
  Reaper* reaper;
  const std::atomic<bool>* go_on;
};

TEST(Reaper, FlushWaitsForWhatWasTakenBeforeAndForNothingLater) {
  Reaper reaper;
  std::atomic<bool> go_on{true};
  auto held = std::make_shared<const int>(1);
  const std::weak_ptr<const int> watched = held;
  reaper.take(std::make_shared<const Endless>(&reaper, &go_on));
  reaper.take(std::move(held));
  auto flushed = std::async(std::launch::async, [&] { reaper.flush(); });
  const auto state = flushed.wait_for(std::chrono::seconds(60));
  EXPECT_TRUE(watched.expired());
  go_on = false;
  EXPECT_EQ(state, std::future_status::ready);
}

}  // namespace
}  // namespace chimera
