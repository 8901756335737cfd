// epoll, and a way to wake who waits for it.
//
// Thread safety: wake() from any thread, the rest by the one that waits.
#pragma once

#include <cstdint>
#include <span>

#include "daemon/front/listener.h"

namespace chimera {

class Poller {
 public:
  /// What an event is about.
  enum class Tag : uint8_t { kWake, kListener, kOuter, kInner };
  struct Event {
    Tag tag = Tag::kWake;
    uint64_t number = 0;  // as it was given to watch(), below 2^60
  };

  /// ok() says whether the descriptors could be had.
  Poller();
  bool ok() const { return epoll_.valid() && wake_.valid(); }

  /// From now on `events` of fd (EPOLLIN, EPOLLOUT) are told, in the place of `before`. Of a
  /// descriptor without events nothing is told, not even that it hung up.
  void watch(int fd, uint32_t before, uint32_t events, Event about) const;
  /// Waits for at most `timeout_ms` (-1: as long as it takes); how many of `out` were filled in.
  size_t wait(int timeout_ms, std::span<Event> out) const;

  /// Makes wait() return, with a kWake.
  void wake() const;
  /// To be called when it did.
  void rest() const;

 private:
  OwnedFd epoll_, wake_;
};

}  // namespace chimera
