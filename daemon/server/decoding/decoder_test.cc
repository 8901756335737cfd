#include "daemon/server/decoding/decoder.h"

#include <gtest/gtest.h>

#include <chrono>

namespace chimera {
namespace {

constexpr std::chrono::seconds kPatience{60};
const Decoder::Connection kOne{0, "one"}, kTwo{0, "two"};

/// Reads nothing while it is shut, and then what it is given as the id of a request.
class Decoding : public testing::Test {
 protected:
  ~Decoding() override { open(); }
  static Undecoded message(std::string id, size_t size = 1) {
    id.resize(std::max(size, id.size()), ' ');
    return {std::move(id)};
  }
  Decoded read(Undecoded message) {
    const MutexLock lock(mutex_);
    ++reading_;
    changed_.notify_all();
    changed_.wait(mutex_, [this]() REQUIRES(mutex_) { return open_; });
    Decoded out;
    out.id = message.text.substr(0, message.text.find(' '));
    out.request = wire::Error{};
    out.message = std::move(message);
    return out;
  }
  void open() {
    const MutexLock lock(mutex_);
    open_ = true;
    changed_.notify_all();
  }
  void wait_until_reading() {
    const MutexLock lock(mutex_);
    ASSERT_TRUE(
        changed_.wait_for(mutex_, kPatience, [this]() REQUIRES(mutex_) { return reading_ > 0; }));
  }
  void woken() {
    const MutexLock lock(mutex_);
    ++woken_;
    changed_.notify_all();
  }
  /// Ids of the next `count`, in the order in which they were read.
  std::string taken(size_t count) {
    std::string ids;
    for (size_t n = 0; n < count;) {
      const auto some = decoder_.take();
      for (const auto& [from, decoded] : some) ids += decoded.id + " ";
      n += some.size();
      const MutexLock lock(mutex_);
      if (n < count && !changed_.wait_for(mutex_, kPatience,
                                          [this]() REQUIRES(mutex_) { return woken_ > seen_; })) {
        break;
      }
      seen_ = woken_;
    }
    return ids;
  }

  Mutex mutex_;
  CondVar changed_;
  int reading_ GUARDED_BY(mutex_) = 0, woken_ GUARDED_BY(mutex_) = 0;
  int seen_ GUARDED_BY(mutex_) = 0;
  bool open_ GUARDED_BY(mutex_) = false;
  Decoder decoder_{[this] { woken(); },
                   [this](Undecoded message, wire::Endpoint) { return read(std::move(message)); }};
};

TEST_F(Decoding, MessagesOfAConnectionKeepTheirOrder) {
  decoder_.post(kOne, message("large", 2'000'000));
  decoder_.post(kOne, message("small"));
  decoder_.post(kOne, message("middle", 100'000));
  EXPECT_TRUE(decoder_.holds(kOne));
  EXPECT_FALSE(decoder_.holds(kTwo));
  open();
  EXPECT_EQ(taken(3), "large small middle ");
  EXPECT_FALSE(decoder_.holds(kOne));
  EXPECT_TRUE(decoder_.idle());
}

TEST_F(Decoding, WhoSendsLittleWaitsForNoMoreThanTheMessageBeingRead) {
  decoder_.post(kOne, message("a1", 2'000'000));
  wait_until_reading();
  for (const char* id : {"a2", "a3", "a4"}) decoder_.post(kOne, message(id, 2'000'000));
  decoder_.post(kTwo, message("b1", 20'000));
  decoder_.post(kTwo, message("b2", 20'000));
  open();
  EXPECT_EQ(taken(6), "a1 b1 b2 a2 a3 a4 ");
}

// As many bytes of the one as of the other: 32 messages of 64 KiB for each of 2 MiB.
TEST_F(Decoding, TurnsAreOfBytes) {
  decoder_.post(kTwo, message("first"));
  wait_until_reading();
  for (int i = 0; i < 2; ++i) decoder_.post(kOne, message("large", 8 * Decoder::kTurn));
  for (int i = 0; i < 20; ++i) decoder_.post(kTwo, message("s", Decoder::kTurn));
  open();
  std::string got = taken(23);
  ASSERT_TRUE(got.starts_with("first "));
  got.erase(0, std::string("first ").size());  // it has an s too
  const size_t one = got.find("large"), two = got.rfind("large");
  EXPECT_GE(std::count(got.begin(), got.begin() + static_cast<ptrdiff_t>(one), 's'), 7);
  EXPECT_GE(std::count(got.begin() + static_cast<ptrdiff_t>(one),
                       got.begin() + static_cast<ptrdiff_t>(two), 's'),
            7);
}

TEST_F(Decoding, OfAConnectionThatIsGoneNothingIsGivenOut) {
  decoder_.post(kOne, message("gone"));
  wait_until_reading();
  decoder_.post(kOne, message("gone"));
  decoder_.forget(kOne);
  EXPECT_TRUE(decoder_.idle());
  decoder_.post(kOne, message("new"));
  open();
  EXPECT_EQ(taken(1), "new ");
  EXPECT_TRUE(decoder_.idle());
}

TEST(Decode, ArgumentsAreOfControlCallsAlone) {
  const std::string control = R"({"id":"a","call":"bias","name":"legal","value":0.5})";
  const Decoded decoded = decode({control}, wire::Endpoint::kControl);
  EXPECT_EQ(decoded.id, "a");
  EXPECT_EQ(decoded.arguments, (Json{{"name", "legal"}, {"value", 0.5}}));
  EXPECT_EQ(decoded.message.text, control);
  const std::string serve = R"({"id":"b","call":"generate","prompt":"secret"})";
  EXPECT_EQ(decode({serve}, wire::Endpoint::kServe).arguments, Json::object());
  const Decoded wrong = decode({R"({"id":"c","call":"nothing"})"}, wire::Endpoint::kControl);
  EXPECT_EQ(wrong.id, "c");
  EXPECT_TRUE(std::holds_alternative<wire::Error>(wrong.request));
}

}  // namespace
}  // namespace chimera
