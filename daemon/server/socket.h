// One ROUTER socket behind the front, with the settings that a hostile network asks for, and a
// monitor that tells when a connection is gone. ZeroMQ itself (cppzmq) is seen in socket.cc alone:
// its exceptions end there.
//
// Thread safety: made on one thread, then used by one (the IO thread).
#pragma once

#include <chrono>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <vector>

#include "base/status.h"
#include "daemon/front/front.h"
#include "daemon/security/authority.h"
#include "daemon/server/answers/live.h"

namespace chimera {

/// A received message without its envelope; at most kMaxFrames frames are kept.
struct Incoming {
  static constexpr size_t kMaxFrames = 3;  // magic, body and one too many
  Peer peer;
  std::vector<std::string> frames;
  int fd = -1;        // of the connection it came through
  uint64_t cost = 0;  // of its frames: see RouterSocket::took
};

/// What the sockets of one server share; it ends with the last who holds it, and then waits for
/// what is still on its way out (RouterSocket::set_linger).
class SocketContext;
/// `authority`, which outlives the context, decides the handshakes of all its sockets.
/// resource_exhausted when there are no descriptors left.
Result<std::shared_ptr<SocketContext>> make_socket_context(const Authority& authority);

class RouterSocket {
 public:
  enum class Sent { kOk, kFull, kGone };

  /// Listens at `path`, where the front connects. With a `secret_key` (Z85) peers prove theirs;
  /// without, the front says who they are.
  static Result<std::unique_ptr<RouterSocket>> bind(std::shared_ptr<SocketContext> context,
                                                    const std::string& path, size_t port,
                                                    const std::string& secret_key);
  /// The front that connects here; before the first message. It outlives the socket.
  void attach(Front* front);
  ~RouterSocket();
  RouterSocket(const RouterSocket&) = delete;
  RouterSocket& operator=(const RouterSocket&) = delete;

  /// Waits until one of the sockets has a message or a lost connection, `fd` is readable, or
  /// `timeout` has passed (nullopt: never). Returns for a signal as well.
  static void wait(std::span<const std::unique_ptr<RouterSocket>> sockets, int fd,
                   std::optional<std::chrono::milliseconds> timeout);

  /// Never blocks; nullopt when nothing waits.
  std::optional<Incoming> receive();
  /// Whether the connection through which it came is still there, as far as was told (by receive
  /// and take_disconnected). libzmq gives out what it holds of a peer after having told its end,
  /// and the next connection may have the descriptor by then.
  bool connected(const Incoming& incoming);
  /// Tells the front that what came through that connection is dealt with: until then it counts
  /// as waiting, and a connection of which too much waits is not read.
  void took(int fd, uint64_t cost);
  /// Never blocks. The whole message goes or nothing. The binary frame is not copied.
  Sent send(const Peer& peer, const Answer& answer);
  /// Descriptors of the connections that ended since the last call.
  std::vector<int> take_disconnected();
  /// Ends the connection of that descriptor, which take_disconnected() then tells.
  void hang_up(int fd);
  /// Lets what is queued in ZeroMQ go out for at most `limit` when the context ends.
  void set_linger(std::chrono::milliseconds limit);

 private:
  struct Impl;
  explicit RouterSocket(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace chimera
