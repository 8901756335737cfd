// FrameMeter: what a peer has sent after its greeting and nobody has taken yet.
//
// libzmq keeps the frames of a message until its last one has come, without any bound, and a peer
// may never send that one. Frames can be told apart here, over CURVE too, where their sizes are
// those of the boxes; which of them are the last of a message cannot. So what goes in is counted
// here, what the server took out of libzmq is told by it, and the rest is what libzmq holds.
//
// Frames of at most kSmall bytes are counted apart: over CURVE heartbeats look like them, and
// nobody takes those.
//
// Thread safety: a FrameMeter by the front's thread; Taken by any.
#pragma once

#include <atomic>
#include <chrono>
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "base/status.h"
#include "daemon/front/handshake.h"

namespace chimera {

/// What the server took of one connection, as it goes on.
struct Taken {
  std::atomic<uint64_t> bytes{0};       // cost_of() all frames
  std::atomic<uint64_t> messages{0};    // whole ones
  std::atomic<bool> waited_for{false};  // the front reads on when something is taken
};

class FrameMeter {
 public:
  using Clock = std::chrono::steady_clock;
  // PING is the longest of what looks like a frame and is none: its name, a time, 16 bytes.
  static constexpr size_t kSmall = 23;
  // What libzmq needs for a frame besides its bytes (zmq_msg_t).
  static constexpr size_t kFrame = 64;
  /// What a frame of that size counts.
  static constexpr uint64_t cost_of(size_t size) { return size <= kSmall ? 0 : size + kFrame; }

  explicit FrameMeter(Mechanism mechanism) : mechanism_(mechanism) {}

  /// The next bytes after the greeting. invalid_argument when the connection is to end: what cannot
  /// be ZMTP 3, or a command of a CURVE handshake that is longer than they are.
  Status feed(std::string_view bytes);
  /// Bytes that libzmq may hold for this peer.
  uint64_t held(const Taken& taken);

 private:
  enum class At : uint8_t { kFlags, kSize, kBody };
  Status begin_frame();
  void end_frame();

  const Mechanism mechanism_;
  At at_ = At::kFlags;
  uint8_t flags_ = 0;
  size_t size_bytes_ = 0;         // of the size, still to come
  uint64_t size_ = 0, rest_ = 0;  // of the body: whole, and still to come
  size_t commands_ = 0;           // of the handshake
  uint64_t passed_ = 0, small_ = 0;
  uint64_t seen_messages_ = 0;  // of Taken, when small_ began at 0
  Clock::time_point small_since_ = Clock::now();
};

}  // namespace chimera
