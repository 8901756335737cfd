#include "daemon/front/frame_meter.h"

#include <algorithm>

namespace chimera {
namespace {

constexpr uint8_t kLong = 2, kCommand = 4, kKnownFlags = 7;
// A peer says HELLO and INITIATE, with some 200 and 300 bytes.
constexpr size_t kCurveCommands = 2, kMaxCurveCommand = 4096;
// Around every frame over CURVE: "\7MESSAGE", a nonce, the box's code, the frame's flags.
constexpr uint64_t kBox = 8 + 8 + 16 + 1;
// Heartbeats of both sides, every two seconds or every half.
constexpr double kSmallPerSecond = 4;

}  // namespace

Status FrameMeter::begin_frame() {
  rest_ = size_;
  at_ = At::kBody;
  if (mechanism_ == Mechanism::kCurve && commands_ < kCurveCommands) {
    ++commands_;
    if ((flags_ & kCommand) != 0 && size_ <= kMaxCurveCommand) return {};
    return {Code::kInvalidArgument, "no command of a CURVE handshake"};
  }
  return {};
}

void FrameMeter::end_frame() {
  at_ = At::kFlags;
  const uint64_t around = mechanism_ == Mechanism::kCurve ? kBox : 0;
  // Commands are used up at once.
  const bool command = (flags_ & kCommand) != 0;
  if (command || size_ <= around + kSmall) {
    passed_ -= size_;
    small_ += command ? 0 : 1;
  } else {
    passed_ += kFrame;
    passed_ -= around;
  }
}

Status FrameMeter::feed(std::string_view bytes) {
  while (!bytes.empty() || (at_ == At::kBody && rest_ == 0)) {
    switch (at_) {
      case At::kFlags:
        flags_ = static_cast<uint8_t>(bytes.front());
        if ((flags_ & ~kKnownFlags) != 0) return {Code::kInvalidArgument, "flags of no frame"};
        size_bytes_ = (flags_ & kLong) != 0 ? 8 : 1;
        size_ = 0;
        at_ = At::kSize;
        bytes.remove_prefix(1);
        break;
      case At::kSize:
        size_ = size_ << 8 | static_cast<uint8_t>(bytes.front());
        bytes.remove_prefix(1);
        if (--size_bytes_ == 0) CHIMERA_RETURN_IF_ERROR(begin_frame());
        break;
      case At::kBody: {
        const uint64_t count = std::min<uint64_t>(rest_, bytes.size());
        passed_ += count;
        rest_ -= count;
        bytes.remove_prefix(count);
        if (rest_ == 0) end_frame();
        break;
      }
    }
  }
  return {};
}

uint64_t FrameMeter::held(const Taken& taken) {
  const uint64_t messages = taken.messages.load(std::memory_order_acquire);
  if (messages != seen_messages_) {
    // Small frames before a message that was taken are taken too. What came behind it begins anew
    // with the next look, which is some frames and not many.
    seen_messages_ = messages;
    small_ = 0;
    small_since_ = Clock::now();
  }
  uint64_t small = small_;
  if (small > 0) {
    const std::chrono::duration<double> age = Clock::now() - small_since_;
    small -= std::min(small, static_cast<uint64_t>(age.count() * kSmallPerSecond));
  }
  const uint64_t out = taken.bytes.load(std::memory_order_acquire);
  return passed_ - std::min(passed_, out) + small * kFrame;
}

}  // namespace chimera
