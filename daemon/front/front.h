// The front: accepts the connections of an endpoint, counts them, looks at what each says first,
// and hands their bytes to libzmq and back.
//
// libzmq 4.3.4 ends its process when a descriptor for an accepted connection cannot be had, and
// when a peer has claimed the routing id that it would give to the next one. So it listens on
// sockets in a directory of the daemon's own, where only the front connects: no more connections
// than there are descriptors for, and without names that peers chose (handshake.h).
//
// Invariants: (1) at most Endpoint::most connections at a time, and of one host over TCP at most
// Endpoint::most_per_host, those counted whose end libzmq has not seen yet; more are closed at
// once; (2) what one side has sent is handed to the other in order and whole, or both are closed;
// per direction at most 64 KiB wait here, so a peer that does not read is felt by libzmq as before;
// (3) nothing here waits: one thread, epoll; (4) of messages that libzmq holds for a peer because
// their end has not come, or nobody took them, it gets no more than some 16 MiB of one connection
// and 96 MiB of all: nothing more is read from the one, and of all that with most is closed. A peer
// from which nothing is read for long loses its connection by libzmq's heartbeats; (5) libzmq's
// connections do not hang up: it closes them first, when it has read what came (link.h), so its
// sockets have to end before the front does.
//
// Thread safety: all methods may be called from any thread. Callbacks come on the front's thread
// and must not block.
#pragma once

#include <sys/types.h>

#include <chrono>
#include <cstdint>
#include <functional>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/status.h"
#include "daemon/front/frame_meter.h"
#include "daemon/front/handshake.h"

namespace chimera {

/// Of one accepted connection.
struct FrontPeer {
  uint64_t number = 0;          // unique while the front lives
  size_t endpoint = 0;          // index of Options::endpoints
  std::string address;          // "127.0.0.1:4711"; "uid 1000, pid 4711" over ipc
  std::optional<uint32_t> uid;  // over ipc
  std::shared_ptr<Taken> taken = std::make_shared<Taken>();  // see Front::took
};

class Front {
 public:
  struct Endpoint {
    std::string address;  // ipc://PATH or tcp://ADDRESS:PORT
    Mechanism mechanism = Mechanism::kNull;
    mode_t mode = 0600;  // of an ipc socket
    std::string inner;   // path of the socket on which libzmq listens
    size_t most = 256;
    size_t most_per_host = 256;
  };
  struct Options {
    std::vector<Endpoint> endpoints;
    /// What is told to libzmq of a peer; nullopt: it is not admitted.
    std::function<std::optional<ReadyProperties>(const FrontPeer&)> admit;
  };
  /// Binds all addresses.
  static Result<std::unique_ptr<Front>> start(Options options);
  /// Closes the listeners, hands on what libzmq has left for at most `flush`, then closes the rest.
  /// libzmq's sockets have ended before: see (5).
  void stop(std::chrono::milliseconds flush);
  ~Front();

  /// The peers of an endpoint in the order in which libzmq accepts them: called once for every
  /// connection that it accepted. Null number when there is none.
  std::optional<FrontPeer> next_accepted(size_t endpoint);
  /// Tells that a message of that peer was received, whose frames cost so many bytes
  /// (FrameMeter::cost_of).
  void took(const FrontPeer& peer, uint64_t bytes);
  /// Closes the connection, after what waits for it.
  void hang_up(uint64_t number);

 private:
  struct Impl;
  explicit Front(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace chimera
