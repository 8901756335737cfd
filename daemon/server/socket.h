// One ROUTER socket with the settings that a hostile network asks for, and a monitor that tells
// when a connection is gone.
//
// Thread safety: made on one thread, then used by one (the IO thread).
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "daemon/server/live.h"

namespace chimera {

/// A received message without its envelope; at most kMaxFrames frames are kept.
struct Incoming {
  static constexpr size_t kMaxFrames = 3;  // magic, body and one too many
  Peer peer;
  std::vector<std::string> frames;
  int fd = -1;  // of the connection it came through
};

class RouterSocket {
 public:
  enum class Sent { kOk, kFull, kGone };

  /// Binds. Refused: an ipc path where a daemon answers or something else than a socket lies, TCP
  /// beyond the loopback interface (it would need keys), every other transport.
  static Result<std::unique_ptr<RouterSocket>> bind(void* zmq_context, const std::string& endpoint,
                                                    size_t port);
  ~RouterSocket();
  RouterSocket(const RouterSocket&) = delete;
  RouterSocket& operator=(const RouterSocket&) = delete;

  void* handle() const { return socket_; }           // for zmq_poll
  void* monitor_handle() const { return monitor_; }  // for zmq_poll

  /// Never blocks; nullopt when nothing waits.
  std::optional<Incoming> receive();
  /// Never blocks. The whole message goes or nothing. The binary frame is not copied.
  Sent send(const Peer& peer, const Answer& answer);
  /// Descriptors of the connections that ended since the last call.
  std::vector<int> take_disconnected();
  /// Lets what is queued in ZeroMQ go out for at most `linger_ms` when the context ends.
  void set_linger(int linger_ms);

 private:
  RouterSocket() = default;
  void* socket_ = nullptr;
  void* monitor_ = nullptr;
  size_t port_ = 0;
  std::string unlink_path_;
};

}  // namespace chimera
