// Who may open a connection. libzmq asks during every handshake (ZAP, ZeroMQ RFC 27).
//
// Refused are peers that choose their own routing id. libzmq numbers the others itself, from a
// start that everybody can know, and ends the process when a number is taken: one peer that claims
// the next few would stop the daemon as soon as somebody else connects. Protocol versions without a
// handshake (ZMTP 1 and 2) are refused by libzmq once there is a ZAP domain.
//
// Thread safety: made and destroyed by one thread; answers on a thread of its own, so that
// connecting does not wait for the IO thread. Includes zmq.hpp: for the .cc files that speak
// ZeroMQ.
#pragma once

#include <string>
#include <thread>
#include <vector>
#include <zmq.hpp>

namespace chimera {

/// The ZAP domain of every ROUTER; without one libzmq asks nobody.
inline constexpr const char* kAdmissionDomain = "chimera";

/// The answer to a request of these frames, RFC 27 in both directions. Anything that is no request
/// of our own sockets is refused.
std::vector<std::string> admit(const std::vector<std::string>& request);

class Admission {
 public:
  /// Binds before it returns: from then on handshakes are answered. Throws zmq::error_t.
  explicit Admission(zmq::context_t& context);
  /// After the sockets that it answers for, before the context.
  ~Admission();
  Admission(const Admission&) = delete;
  Admission& operator=(const Admission&) = delete;

 private:
  void run();
  void answer_one();

  zmq::socket_t socket_;
  int stop_fd_ = -1;  // an eventfd
  std::thread thread_;
};

}  // namespace chimera
