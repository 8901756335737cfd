#include "chimera_client/connection.h"

#include <fmt/format.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <vector>
#include <zmq.hpp>

#include "base/json/reader.h"
#include "clients/keys/certificate.h"

namespace chimera::client {
namespace {

// A routing trace of a long text has tens of millions of numbers.
constexpr JsonLimits kLimits{.max_bytes = size_t{1} << 30, .max_values = size_t{1} << 27};
// How long an interrupt may go unnoticed.
constexpr Milliseconds kSlice{50};
constexpr int kHeartbeatMs = 2'000;
constexpr int kHeartbeatTimeoutMs = 6'000;

/// All frames of one message; empty when none waits.
std::vector<std::string> receive_frames(zmq::socket_t& socket) {
  std::vector<std::string> frames;
  zmq::message_t frame;
  do {
    if (!socket.recv(frame, zmq::recv_flags::dontwait)) break;
    frames.push_back(frame.to_string());
  } while (frame.more());
  return frames;
}

/// The event that a message of a monitor tells of: its first frame begins with the number.
uint16_t event_number(const std::vector<std::string>& frames) {
  uint16_t number = 0;
  if (frames[0].size() >= sizeof number) std::memcpy(&number, frames[0].data(), sizeof number);
  return number;
}

/// False when the time to send is up. Signals do not end the waiting.
bool send_frame(zmq::socket_t& socket, std::string_view bytes, zmq::send_flags flags) {
  while (true) {
    try {
      return socket.send(zmq::buffer(bytes), flags).has_value();
    } catch (const zmq::error_t& e) {
      if (e.num() != EINTR) throw;
    }
  }
}

}  // namespace

/// The DEALER socket, and a PAIR that tells when its connection begins and ends. Whether a daemon
/// is there is asked of the PAIR and not of ZMQ_IMMEDIATE: with that, libzmq drops the last answers
/// when it learns of them and of the end of the connection at the same time.
struct Connection::Sockets {
  Sockets(zmq::context_t& context, const std::string& endpoint, const std::optional<Keys>& keys,
          Milliseconds connect_timeout)
      : dealer(context, zmq::socket_type::dealer), monitor(context, zmq::socket_type::pair) {
    namespace option = zmq::sockopt;
    dealer.set(option::linger, 0);
    dealer.set(option::sndtimeo, static_cast<int>(connect_timeout.count()));
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
  ~Sockets() { zmq_socket_monitor(dealer.handle(), nullptr, 0); }
  Sockets(const Sockets&) = delete;
  Sockets& operator=(const Sockets&) = delete;

  enum class Connected : uint8_t { kNo, kYes, kLost, kRefused };
  /// Takes one event of the monitor if there is one: how things stand after it.
  Connected follow() {
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

  zmq::socket_t dealer, monitor;
  Connected state = Connected::kNo;
};

Context::Context() = default;
Context::~Context() = default;

zmq::context_t& Context::get() {
  if (made_ == nullptr) made_ = std::make_unique<zmq::context_t>();
  return *made_;
}

Connection::Connection(Context& context, std::string endpoint, KeyFiles keys,
                       Milliseconds connect_timeout)
    : context_(context),
      endpoint_(std::move(endpoint)),
      files_(std::move(keys)),
      connect_timeout_(connect_timeout) {}

Connection::~Connection() = default;

Error Connection::unreachable() const {
  return {"unavailable", fmt::format("daemon: nobody answers at {}", endpoint_),
          "start it with: chimerad --config FILE"};
}

Error Connection::not_connected() const {
  if (sockets_ == nullptr || sockets_->state != Sockets::Connected::kRefused) return unreachable();
  return {"permission_denied", fmt::format("daemon: {} refuses this client", endpoint_),
          keys_ ? "is its public key in the daemon's clients file, and not expired?"
                : "its user is none of the daemon's clients"};
}

std::optional<Error> Connection::read_keys() {
  // An ipc socket tells the daemon the user; keys are for connections that tell nothing.
  if (!endpoint_.starts_with("tcp://") || keys_) return std::nullopt;
  if (files_.key.empty() && files_.server_key.empty()) return std::nullopt;
  if (files_.key.empty() || files_.server_key.empty()) {
    return Error{"invalid_argument",
                 fmt::format("keys: found {} alone (expected key and server key, or none)",
                             files_.key.empty() ? files_.server_key : files_.key),
                 "set --key and --server-key, or CHIMERA_KEY and CHIMERA_SERVER_KEY"};
  }
  const auto own = keys::read_secret(files_.key);
  const auto server = keys::read_public(files_.server_key);
  for (const Status& status : {own.status(), server.status()}) {
    if (status.ok()) continue;
    return Error{std::string(code_name(status.code())), status.message(), status.hint()};
  }
  keys_ = Keys{own->public_key, own->secret_key, server->public_key};
  return std::nullopt;
}

std::optional<Error> Connection::open() {
  if (sockets_ != nullptr) return std::nullopt;
  if (auto error = read_keys()) return error;
  try {
    sockets_ = std::make_unique<Sockets>(context_.get(), endpoint_, keys_, connect_timeout_);
    return std::nullopt;
  } catch (const zmq::error_t& e) {
    return Error{"invalid_argument", fmt::format("endpoint {}: {}", endpoint_, e.what()),
                 "write it as ipc:///path or tcp://127.0.0.1:PORT"};
  }
}

bool Connection::connected() {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + connect_timeout_;
  while (true) {
    // One that was lost since the last call is met here, too: it is tried again on new sockets, as
    // what was sent through the old ones is not for the next daemon.
    std::vector<zmq::pollitem_t> items = {{sockets_->monitor.handle(), 0, ZMQ_POLLIN, 0}};
    bool told = false;
    try {
      told = zmq::poll(items, Milliseconds(0)) > 0;
      const auto left = std::chrono::duration_cast<Milliseconds>(end - Clock::now());
      if (!told && sockets_->state == Sockets::Connected::kYes) return true;
      if (!told && left > Milliseconds(0)) told = zmq::poll(items, left) > 0;
    } catch (const zmq::error_t&) {  // a signal: what it means is the caller's
    }
    if (told) sockets_->follow();
    if (told && sockets_->state == Sockets::Connected::kRefused) return false;
    if (told && sockets_->state == Sockets::Connected::kLost) {
      if (take_arrived()) return false;
      sockets_.reset();
      if (open()) return false;
    }
    if (!told && Clock::now() >= end) return false;
  }
}

std::optional<Error> Connection::send(const std::string& body) {
  if (body.size() > wire::kMaxMessageBytes) {
    return Error{
        "invalid_argument",
        fmt::format("request: {} bytes (expected at most {})", body.size(), wire::kMaxMessageBytes),
        "send the text in parts"};
  }
  if (auto error = open()) return error;
  try {
    if (!connected()) {
      const Error error = not_connected();
      if (error.code == "permission_denied") sockets_.reset();  // the next try begins anew
      return error;
    }
    if (!send_frame(sockets_->dealer, wire::kMagic, zmq::send_flags::sndmore) ||
        !send_frame(sockets_->dealer, body, zmq::send_flags::none)) {
      return unreachable();
    }
  } catch (const zmq::error_t&) {
    return unreachable();
  }
  return std::nullopt;
}

std::optional<Error> Connection::take_arrived() {
  while (true) {
    std::vector<std::string> frames;
    try {
      frames = receive_frames(sockets_->dealer);
    } catch (const zmq::error_t&) {  // a signal; what has come is there the next time
    }
    if (frames.empty()) return std::nullopt;
    Json body;
    if (frames.size() >= 2 && frames[0] == wire::kMagic) {
      auto parsed = parse_json(frames[1], kLimits);
      if (parsed.ok()) body = std::move(*parsed);
    }
    if (!body.is_object()) {
      return Error{"internal", fmt::format("answer from {}: not a chimera/1 message", endpoint_),
                   "is it really chimerad that listens there?"};
    }
    arrived_.push_back({std::move(body), frames.size() > 2 ? std::move(frames[2]) : ""});
  }
}

std::optional<Error> Connection::wait(Milliseconds slice) {
  std::vector<zmq::pollitem_t> items = {{sockets_->dealer.handle(), 0, ZMQ_POLLIN, 0},
                                        {sockets_->monitor.handle(), 0, ZMQ_POLLIN, 0}};
  const size_t before = arrived_.size();
  bool told = false;
  try {
    zmq::poll(items, slice);
    told = (items[1].revents & ZMQ_POLLIN) != 0;
  } catch (const zmq::error_t&) {  // a signal: the caller looks at its interrupt
  }
  if (auto error = take_arrived()) return error;
  // What was sent before the connection broke still counts.
  if (!told || arrived_.size() != before) return std::nullopt;
  try {
    const auto state = sockets_->follow();
    if (state == Sockets::Connected::kYes || state == Sockets::Connected::kNo) return std::nullopt;
  } catch (const zmq::error_t&) {  // then this event is met again
    return std::nullopt;
  }
  sockets_.reset();  // what was sent through them is not for the next daemon
  return Error{"unavailable", fmt::format("daemon: connection to {} was lost", endpoint_),
               "look at the daemon's log; is it still running?"};
}

Result<Event> Connection::receive(const std::function<bool(const Event&)>& wanted,
                                  std::optional<Milliseconds> timeout, const Interrupt& interrupt) {
  using Clock = std::chrono::steady_clock;
  const auto end = Clock::now() + timeout.value_or(Milliseconds(0));
  size_t looked_at = 0;
  while (true) {
    for (; looked_at < arrived_.size(); ++looked_at) {
      const auto it = arrived_.begin() + static_cast<std::ptrdiff_t>(looked_at);
      if (!wanted(*it)) continue;
      Event event = std::move(*it);
      arrived_.erase(it);
      return event;
    }
    if (interrupt && interrupt()) {
      return Error{"cancelled", "request: interrupted while waiting", ""};
    }
    Milliseconds slice = kSlice;
    if (timeout) {
      const auto left = std::chrono::duration_cast<Milliseconds>(end - Clock::now());
      if (left <= Milliseconds(0)) {
        return Error{"deadline_exceeded",
                     fmt::format("daemon: no answer from {} in time", endpoint_),
                     "look at its log, or at `chimera stats`"};
      }
      slice = std::min(slice, left);
    }
    if (sockets_ == nullptr) return unreachable();
    if (auto error = wait(slice)) return *error;
  }
}

}  // namespace chimera::client
