// The one place where a handshake is decided: libzmq asks it (ZAP, ZeroMQ RFC 27) for every
// connection to our sockets, whatever its mechanism.
//
// Only the front of this process connects to libzmq (daemon/front): the address of a request ends
// in ":uid:gid:pid", which libzmq takes from the kernel (SO_PEERCRED). Over CURVE the peer has
// proved that it holds the secret of the public key in the request; what follows is the mark of the
// connection (authority.h), which travels as the user id of the answer and comes back with every
// message. Of other connections the front has told the mark itself; their user id says so.
//
// Thread safety: made and destroyed by one thread; answers on a thread of its own, so that a
// handshake does not wait for the IO thread. Includes zmq.hpp: for the .cc files that speak ZeroMQ.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <string_view>
#include <thread>
#include <vector>
#include <zmq.hpp>

#include "daemon/security/authority.h"

namespace chimera {

/// The ZAP domains of our sockets, one for each way to be known.
inline constexpr const char* kCurveDomain = "chimera-curve";
inline constexpr const char* kFrontDomain = "chimera-front";
/// The user id of connections whose mark the front tells, as this property of their READY.
inline constexpr std::string_view kFrontUser = "front";
inline constexpr const char* kMarkProperty = "X-Chimera-Mark";

/// The name of a property by which a handshake sets the routing id of a peer.
inline constexpr const char* kRoutingIdProperty = "Identity";
/// A routing id that nobody can guess or claim. Every peer gets one: those that libzmq would number
/// itself, from a start that everybody knows, end the process when somebody has claimed the number.
std::string new_routing_id();

/// The answer to a request of these frames, RFC 27 in both directions: the mark as user id when
/// `authority` knows a client of it, or kFrontUser; else 400.
std::vector<std::string> admit(const std::vector<std::string>& request, const Authority& authority);

class Admission {
 public:
  /// Binds before it returns: from then on handshakes are answered. Throws zmq::error_t.
  /// `authority` outlives this.
  Admission(zmq::context_t& context, const Authority& authority);
  /// After the sockets that it answers for, before the context.
  ~Admission();
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;

 private:
  void run();
  void answer_one();
  void log_refusal();

  const Authority& authority_;
  zmq::socket_t socket_;
  int stop_fd_ = -1;  // an eventfd
  std::chrono::steady_clock::time_point next_log_;
  uint64_t refused_ = 0;  // since the last line of the log
  std::thread thread_;
};

}  // namespace chimera
