// The ZeroMQ sockets of one connection to the daemon. Internal to the client library: the only
// header that shows cppzmq, whose exceptions end in the sources that include it.
//
// Thread safety: none; a Dealer belongs to one thread.
#pragma once

#include <chrono>
#include <optional>
#include <string>
#include <string_view>
#include <vector>
#include <zmq.hpp>

#include "chimera_client/curve.h"

namespace chimera::client {

/// All frames of one message; empty when none waits. Throws zmq::error_t.
std::vector<std::string> receive_frames(zmq::socket_t& socket);

/// False when the time to send is up. Signals do not end the waiting. Throws zmq::error_t.
bool send_frame(zmq::socket_t& socket, std::string_view bytes, zmq::send_flags flags);

/// The DEALER socket, and a PAIR that tells when its connection begins and ends. Whether a daemon
/// is there is asked of the PAIR and not of ZMQ_IMMEDIATE: with that, libzmq drops the last answers
/// when it learns of them and of the end of the connection at the same time.
struct Dealer {
  /// Throws zmq::error_t, e.g. for an endpoint that cannot be.
  Dealer(zmq::context_t& context, const std::string& endpoint, const std::optional<CurveKeys>& keys,
         std::chrono::milliseconds send_timeout);
  ~Dealer();
  Dealer(const Dealer&) = delete;
  Dealer& operator=(const Dealer&) = delete;

  enum class Connected : uint8_t { kNo, kYes, kLost, kRefused };
  /// Takes one event of the monitor if there is one: how things stand after it. Throws.
  Connected follow();

  zmq::socket_t dealer, monitor;
  Connected state = Connected::kNo;
};

}  // namespace chimera::client
