#include "chimera_client/dealer.h"

#include <fmt/format.h>

#include <cerrno>
#include <cstring>

namespace chimera::client {
namespace {

constexpr int kHeartbeatMs = 2'000;
constexpr int kHeartbeatTimeoutMs = 6'000;

/// The event that a message of a monitor tells of: its first frame begins with the number.
uint16_t event_number(const std::vector<std::string>& frames) {
  uint16_t number = 0;
  if (frames[0].size() >= sizeof number) std::memcpy(&number, frames[0].data(), sizeof number);
  return number;
}

}  // namespace

std::vector<std::string> receive_frames(zmq::socket_t& socket) {
  std::vector<std::string> frames;
  zmq::message_t frame;
  do {
    if (!socket.recv(frame, zmq::recv_flags::dontwait)) break;
    frames.push_back(frame.to_string());
  } while (frame.more());
  return frames;
}

bool send_frame(zmq::socket_t& socket, std::string_view bytes, zmq::send_flags flags) {
  while (true) {
    try {
      return socket.send(zmq::buffer(bytes), flags).has_value();
    } catch (const zmq::error_t& e) {
      if (e.num() != EINTR) throw;
    }
  }
}

Dealer::Dealer(zmq::context_t& context, const std::string& endpoint,
               const std::optional<CurveKeys>& keys, std::chrono::milliseconds send_timeout)
    : dealer(context, zmq::socket_type::dealer), monitor(context, zmq::socket_type::pair) {
  namespace option = zmq::sockopt;
  dealer.set(option::linger, 0);
  dealer.set(option::sndtimeo, static_cast<int>(send_timeout.count()));
  // Without a mark. Where one is reached, libzmq 4.3.4 reads no more, and ends the process when the
  // connection breaks meanwhile: at its next heartbeat, or at one that lies behind what it has not
  // taken. What can pile up is what was asked for.
  dealer.set(option::rcvhwm, 0);
  dealer.set(option::heartbeat_ivl, kHeartbeatMs);
  dealer.set(option::heartbeat_timeout, kHeartbeatTimeoutMs);
  if (keys) {
    dealer.set(option::curve_publickey, keys->public_key);
    dealer.set(option::curve_secretkey, keys->secret_key);
    dealer.set(option::curve_serverkey, keys->server_key);
  }
  const std::string events = fmt::format("inproc://monitor-{}", static_cast<const void*>(this));
  constexpr int kEvents =
      ZMQ_EVENT_HANDSHAKE_SUCCEEDED | ZMQ_EVENT_HANDSHAKE_FAILED_AUTH | ZMQ_EVENT_DISCONNECTED;
  if (zmq_socket_monitor(dealer.handle(), events.c_str(), kEvents) != 0) throw zmq::error_t();
  monitor.set(option::linger, 0);
  monitor.connect(events);
  dealer.connect(endpoint);
}

// Events for a PAIR that is gone would block ZeroMQ's own thread.
Dealer::~Dealer() { zmq_socket_monitor(dealer.handle(), nullptr, 0); }

Dealer::Connected Dealer::follow() {
  const auto frames = receive_frames(monitor);
  if (frames.empty()) return state;
  switch (event_number(frames)) {
    case ZMQ_EVENT_HANDSHAKE_SUCCEEDED:
      return state = Connected::kYes;
    case ZMQ_EVENT_HANDSHAKE_FAILED_AUTH:
      return state = Connected::kRefused;
    default:
      return state = Connected::kLost;
  }
}

}  // namespace chimera::client
