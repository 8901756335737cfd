// Who keeps experts in memory, and for how long.
#include "experts/residency/expert_residency.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <atomic>
#include <functional>
#include <map>
#include <set>
#include <thread>

namespace chimera {
namespace {

using namespace std::chrono_literals;

/// Gives every row its number.
class Numbered final : public Expert {
 public:
  Numbered(float number, uint64_t bytes) : number_(number), bytes_(bytes) {}
  Status forward(const float*, int64_t rows, float* y, ExpertContext&) const override {
    std::fill_n(y, rows, number_);
    return {};
  }
  uint64_t resident_bytes() const override { return bytes_; }

 private:
  const float number_;
  const uint64_t bytes_;
};

float number_of(const ExpertPlace& place) {
  return static_cast<float>(place.layer * 10 + place.index);
}

/// Makes them as often as it is asked.
class Numbers final : public ExpertSource {
 public:
  /// `on_digests`: told how many are asked for; may be null.
  Numbers(std::atomic<int>* reads, uint64_t bytes, std::function<Status(size_t)> on_digests)
      : reads_(reads), bytes_(bytes), on_digests_(std::move(on_digests)) {}
  Result<std::vector<std::string>> digests(std::span<const ExpertPlace> places) override {
    if (on_digests_) CHIMERA_RETURN_IF_ERROR(on_digests_(places.size()));
    std::vector<std::string> out;
    for (const ExpertPlace& place : places) out.push_back(std::to_string(number_of(place)));
    return out;
  }
  Result<std::vector<std::shared_ptr<const Expert>>> read(
      std::span<const ExpertPlace> places, std::span<const std::string> digests) override {
    std::vector<std::shared_ptr<const Expert>> out;
    for (size_t i = 0; i < places.size(); ++i) {
      EXPECT_EQ(digests[i], std::to_string(number_of(places[i])));
      out.push_back(std::make_shared<Numbered>(number_of(places[i]), bytes_));
      ++*reads_;
    }
    return out;
  }

 private:
  std::atomic<int>* const reads_;
  const uint64_t bytes_;
  const std::function<Status(size_t)> on_digests_;
};

class Residency : public ::testing::Test {
 protected:
  std::unique_ptr<ExpertResidency> make(std::chrono::milliseconds linger, uint64_t bytes = 100,
                                        std::function<Status(size_t)> on_digests = nullptr) {
    std::vector<ExpertResidency::Resident> all;
    for (int64_t layer = 0; layer < 2; ++layer) {
      for (int64_t e = 0; e < 4; ++e) {
        const ExpertPlace place{layer, e};
        experts_[place] =
            std::make_shared<EvictableExpert>(std::make_shared<Numbered>(number_of(place), bytes));
        all.push_back({place, experts_[place]});
      }
    }
    return std::make_unique<ExpertResidency>(
        std::make_unique<Numbers>(&reads_, bytes, std::move(on_digests)), std::move(all), linger);
  }
  std::set<float> resident() const {
    std::set<float> numbers;
    for (const auto& [place, expert] : experts_) {
      if (expert->resident()) numbers.insert(number_of(place));
    }
    return numbers;
  }
  static std::shared_ptr<ExpertLease> on(ExpertResidency& residency,
                                         std::initializer_list<ExpertPlace> places) {
    return residency.lease(std::vector<ExpertPlace>(places));
  }

  std::atomic<int> reads_{0};
  std::map<ExpertPlace, std::shared_ptr<EvictableExpert>> experts_;
};

TEST_F(Residency, NothingGoesBeforeSomebodySaysSo) {
  const auto residency = make(0ms);
  residency->settle();
  EXPECT_EQ(resident().size(), 8u);
}

TEST_F(Residency, WhatHasALeaseStaysAndTheRestGoes) {
  const auto residency = make(0ms);
  const auto a = on(*residency, {{0, 1}, {1, 2}});
  auto b = on(*residency, {{0, 1}, {0, 3}, {7, 7}});
  residency->let_go_unused();
  residency->settle();
  EXPECT_EQ(resident(), (std::set<float>{1, 3, 12}));
  b.reset();
  residency->settle();
  EXPECT_EQ(resident(), (std::set<float>{1, 12}));
  EXPECT_EQ(reads_, 0);
}

TEST_F(Residency, ALeaseOnWhatIsThereIsReadyAtOnce) {
  const auto residency = make(0ms);
  const auto lease = on(*residency, {{0, 1}});
  EXPECT_TRUE(lease->ready());
  EXPECT_TRUE(lease->wait().ok());
  EXPECT_EQ(reads_, 0);
}

TEST_F(Residency, NothingIsReadForALeaseThatAsksForNothing) {
  const auto residency = make(0ms);
  residency->let_go_unused();
  residency->settle();
  const auto lease = on(*residency, {{0, 1}});
  residency->settle();
  EXPECT_FALSE(lease->ready());
  EXPECT_EQ(reads_, 0);
  lease->begin();
  EXPECT_TRUE(lease->wait().ok());
  EXPECT_EQ(reads_, 1);
}

TEST_F(Residency, WhatWasWantedStaysForAWhile) {
  const auto residency = make(1h);
  residency->let_go_unused();
  residency->settle();
  for (int i = 0; i < 3; ++i) {
    const auto lease = on(*residency, {{0, 1}});
    EXPECT_TRUE(lease->wait().ok());
  }
  residency->settle();
  EXPECT_EQ(reads_, 1);
  EXPECT_EQ(resident(), (std::set<float>{1}));
  residency->let_go_unused();
  residency->settle();
  EXPECT_TRUE(resident().empty());
}

// Letting all of a large checkpoint's experts go takes digests for minutes.
TEST_F(Residency, WhoNeedsAnExpertGoesBeforeThoseThatAreStillToGo) {
  constexpr uint64_t kLarge = uint64_t{1} << 30;  // a slice of its own
  std::vector<int> reads_at_digest;               // read by then, for each that is let go
  std::shared_ptr<ExpertLease> wanted;
  const auto residency = make(0ms, kLarge, [&](size_t places) -> Status {
    EXPECT_EQ(places, 1u);
    reads_at_digest.push_back(reads_);
    if (wanted != nullptr) wanted->begin();  // while others are under way
    return {};
  });
  {
    const auto others = on(*residency, {{0, 1}, {0, 2}, {0, 3}, {1, 0}, {1, 1}, {1, 2}, {1, 3}});
    residency->let_go_unused();
    residency->settle();
    ASSERT_EQ(resident().size(), 7u);
    wanted = on(*residency, {{0, 0}, {1, 3}});
    ASSERT_FALSE(wanted->ready());
    reads_at_digest.clear();
  }
  residency->settle();
  EXPECT_TRUE(wanted->ready());
  EXPECT_EQ(resident(), (std::set<float>{0, 13})) << "and what it holds has stayed";
  EXPECT_EQ(reads_, 1);
  EXPECT_EQ(reads_at_digest, (std::vector<int>{0, 1, 1, 1, 1, 1}));
  wanted.reset();  // before the residency
}

TEST_F(Residency, WhatCannotBeLetGoIsSaidOnce) {
  const auto residency = make(0ms, uint64_t{1} << 30, [](size_t) -> Status {
    return {Code::kFailedPrecondition, "another file"};
  });
  int problems = 0;
  residency->set_account({.problem = [&](const Status&) { ++problems; }});
  residency->let_go_unused();
  residency->settle();
  EXPECT_EQ(problems, 1);
  EXPECT_EQ(resident().size(), 8u);
}

TEST_F(Residency, ManyThreadsNeverFindAnExpertGoneThatTheyHold) {
  const auto residency = make(0ms);
  residency->let_go_unused();
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&, t] {
      ThreadPool pool(1);
      FloatBuffer scratch;
      ExpertContext context{best_kernels(), pool, scratch};
      for (int i = 0; i < 200; ++i) {
        const ExpertPlace place{(i + t) % 2, (i * 7 + t) % 4};
        const auto lease = residency->lease(std::span(&place, 1));
        ASSERT_TRUE(lease->wait().ok());
        float y = -1.0f;
        ASSERT_TRUE(experts_.at(place)->forward(nullptr, 1, &y, context).ok());
        ASSERT_EQ(y, number_of(place));
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  residency->settle();
  EXPECT_TRUE(resident().empty());
}

}  // namespace
}  // namespace chimera
