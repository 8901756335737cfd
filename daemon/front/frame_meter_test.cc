#include "daemon/front/frame_meter.h"

#include <gtest/gtest.h>

#include <string>

namespace chimera {
namespace {

std::string frame(size_t size, uint8_t flags = 0) {
  std::string out;
  const int bytes = size > 255 ? 8 : 1;
  out.push_back(static_cast<char>(flags | (bytes == 8 ? 2 : 0)));
  for (int shift = 8 * (bytes - 1); shift >= 0; shift -= 8) {
    out.push_back(static_cast<char>(size >> shift & 0xFF));
  }
  return out + std::string(size, 'x');
}
constexpr uint8_t kMore = 1, kCommand = 4;
constexpr size_t kBox = 33;

TEST(FrameMeter, WhatWasNotTakenIsHeld) {
  for (const size_t around : {size_t{0}, kBox}) {
    FrameMeter meter(around == 0 ? Mechanism::kNull : Mechanism::kCurve);
    Taken taken;
    std::string text;
    if (around > 0) text = frame(200, kCommand) + frame(300, kCommand);
    for (const size_t size : {size_t{9}, size_t{1000}, size_t{24}, size_t{0}}) {
      text += frame(size + around, around == 0 ? kMore : 0);
    }
    for (const char byte : text) ASSERT_TRUE(meter.feed({&byte, 1}).ok());
    const uint64_t large = FrameMeter::cost_of(1000) + FrameMeter::cost_of(24);
    EXPECT_EQ(large, 1000 + 24 + 2 * FrameMeter::kFrame);
    EXPECT_EQ(meter.held(taken), large + 2 * FrameMeter::kFrame);
    taken.bytes = FrameMeter::cost_of(1000);
    taken.messages = 1;
    EXPECT_EQ(meter.held(taken), FrameMeter::cost_of(24));
    taken.bytes = large;
    EXPECT_EQ(meter.held(taken), 0u);
  }
}

TEST(FrameMeter, AFrameCountsAsItsBytesCome) {
  FrameMeter meter(Mechanism::kNull);
  const Taken taken;
  const std::string text = frame(1 << 20);
  ASSERT_TRUE(meter.feed(std::string_view(text).substr(0, 9 + 5000)).ok());
  EXPECT_EQ(meter.held(taken), 5000u);
}

TEST(FrameMeter, SmallFramesWithoutAnEndCountToo) {
  FrameMeter meter(Mechanism::kNull);
  const Taken taken;
  constexpr size_t kCount = 100'000;
  for (size_t i = 0; i < kCount; ++i) ASSERT_TRUE(meter.feed(frame(1, kMore)).ok());
  // Those of heartbeats, a few a second, are taken off.
  EXPECT_GT(meter.held(taken), kCount * FrameMeter::kFrame * 9 / 10);
}

TEST(FrameMeter, CommandsAreUsedUpAtOnce) {
  FrameMeter meter(Mechanism::kNull);
  const Taken taken;
  ASSERT_TRUE(meter.feed(frame(3000, kCommand) + frame(30, kCommand)).ok());
  EXPECT_EQ(meter.held(taken), 0u);
}

TEST(FrameMeter, WhatIsNoFrameIsRefused) {
  EXPECT_FALSE(FrameMeter(Mechanism::kNull).feed("\x08").ok());
  EXPECT_FALSE(FrameMeter(Mechanism::kNull).feed("GET /").ok());
  // A handshake of CURVE has no messages, and its commands are short.
  EXPECT_FALSE(FrameMeter(Mechanism::kCurve).feed(frame(200)).ok());
  EXPECT_FALSE(FrameMeter(Mechanism::kCurve).feed(frame(5000, kCommand)).ok());
  FrameMeter second(Mechanism::kCurve);
  EXPECT_FALSE(second.feed(frame(200, kCommand) + frame(5000, kCommand)).ok());
}

}  // namespace
}  // namespace chimera
