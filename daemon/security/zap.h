// The one place where a handshake is decided: libzmq asks it (ZAP, ZeroMQ RFC 27) for every
// connection to our sockets, whatever its mechanism.
//
// Over CURVE the peer has proved that it holds the secret of the public key in the request. Over
// ipc the address ends in ":uid:gid:pid", which libzmq takes from the kernel (SO_PEERCRED). What
// follows is the mark of the connection (authority.h): it travels as the user id of the answer and
// comes back with every message; a peer cannot set or change it.
//
// Thread safety: made and destroyed by one thread; answers on a thread of its own, so that a
// handshake does not wait for the IO thread. Includes zmq.hpp: for the .cc files that speak ZeroMQ.
#pragma once

#include <chrono>
#include <cstdint>
#include <string>
#include <thread>
#include <vector>
#include <zmq.hpp>

#include "daemon/security/authority.h"

namespace chimera {

/// The ZAP domains of our sockets, one for each way to be known.
inline constexpr const char* kCurveDomain = "chimera-curve";
inline constexpr const char* kIpcDomain = "chimera-ipc";
inline constexpr const char* kLoopbackDomain = "chimera-loopback";

/// The answer to a request of these frames, RFC 27 in both directions: the mark as user id when
/// `authority` knows a client of it, else 400.
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
  void log_refusal(const std::vector<std::string>& request);

  const Authority& authority_;
  zmq::socket_t socket_;
  int stop_fd_ = -1;  // an eventfd
  std::chrono::steady_clock::time_point next_log_;
  uint64_t refused_ = 0;  // since the last line of the log
  std::thread thread_;
};

}  // namespace chimera
