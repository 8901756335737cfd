// Link: one accepted connection and the one to libzmq that belongs to it.
//
// Of the two the one to libzmq ends last. libzmq 4.3.4 gives up on a connection that hung up while
// it had stopped to read it (the marks of its socket are reached) but keeps what it knows of it,
// and ends its process when it then writes: a heartbeat that is due, or the answer to one that lies
// behind the messages it had not taken (`Assertion failed: !_io_error`, stream_engine_base.cpp). So
// it is told of an end as one that comes after everything else, by no more bytes, which it sees
// when it reads on; until it has closed its side, ours stays, and what it writes is thrown away.
//
// Thread safety: by the front's thread.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>

#include "daemon/front/frame_meter.h"
#include "daemon/front/front.h"
#include "daemon/front/handshake.h"
#include "daemon/front/listener.h"

namespace chimera {

/// Bytes on their way in one direction.
class Pipe {
 public:
  static constexpr size_t kMost = 64 << 10;

  bool empty() const { return at_ == bytes_.size(); }
  size_t room() const { return kMost - std::min(kMost, bytes_.size() - at_); }
  void add(std::string_view bytes) { bytes_ += bytes; }
  /// Writes what the descriptor takes; false when it is broken.
  bool write_to(int fd);

 private:
  std::string bytes_;
  size_t at_ = 0;  // of bytes_: written already
};

class Link {
 public:
  enum class Side : uint8_t { kOuter, kInner };

  Link(FrontPeer peer, std::string origin, OwnedFd outer, OwnedFd inner, Handshake handshake,
       bool admitted);

  const FrontPeer& peer() const { return peer_; }
  const std::string& origin() const { return origin_; }
  int fd(Side side) const { return side == Side::kOuter ? outer_.get() : inner_.get(); }

  /// Moves what can be moved. False when the link is over, on both sides.
  bool pump();
  /// Ends after what waits for the outer side, or when libzmq ends it for taking none of that.
  void hang_up() { closing_ = true; }
  /// Ends now: the outer side at once, the inner one when libzmq has seen it.
  void part();
  bool parting() const { return parting_; }
  /// Bytes that libzmq may hold for the peer.
  uint64_t held() { return meter_.held(*peer_.taken); }
  /// Bytes that were handed to libzmq since the last call.
  uint64_t take_progress() { return std::exchange(progress_, 0); }
  /// What epoll is to tell of a side: EPOLLIN, EPOLLOUT.
  uint32_t interest(Side side) const;
  /// As it was told to epoll last.
  uint32_t told[2] = {0, 0};

 private:
  enum class Read : uint8_t { kSome, kNothing, kEnd, kBroken };
  Read read(int fd, size_t most, std::string* out);
  bool take_outer();
  /// Of the bytes of the peer those to pass on, after a look at them.
  Result<std::string> look_at(std::string bytes);
  /// Whether libzmq holds so much for it that it has to wait.
  bool has_to_wait();
  bool take_inner();
  /// False when nothing is left to be moved.
  bool move();
  /// False when libzmq has closed its side.
  bool await_inner_end();

  const FrontPeer peer_;
  const std::string origin_;
  OwnedFd outer_, inner_;
  Handshake handshake_;
  FrameMeter meter_;
  const bool admitted_;
  Pipe to_inner_, to_outer_;
  bool outer_ended_ = false, inner_ended_ = false;
  bool closing_ = false;
  bool parting_ = false;
  bool waits_ = false;  // not read: see has_to_wait
  uint64_t progress_ = 0;
  // Of a peer that is not admitted.
  size_t greeting_left_ = Handshake::kGreetingBytes;  // of libzmq, to be handed on
  bool told_no_ = false;
};

}  // namespace chimera
