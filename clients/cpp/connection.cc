#include "chimera_client/connection.h"

#include <fmt/format.h>
#include <zmq.h>

#include <algorithm>
#include <cerrno>
#include <vector>

#include "base/json/reader.h"

namespace chimera::client {
namespace {

// A routing trace of a long text has tens of millions of numbers.
constexpr JsonLimits kLimits{.max_bytes = size_t{1} << 30, .max_values = size_t{1} << 27};
// How long an interrupt may go unnoticed.
constexpr Milliseconds kSlice{50};
constexpr int kHeartbeatMs = 2'000;
constexpr int kHeartbeatTimeoutMs = 6'000;

bool set(void* socket, int option, int value) {
  return zmq_setsockopt(socket, option, &value, sizeof value) == 0;
}

/// All frames of one message; empty when none waits.
std::vector<std::string> receive_frames(void* socket) {
  std::vector<std::string> frames;
  bool more = true;
  while (more) {
    zmq_msg_t message;
    zmq_msg_init(&message);
    const bool got = zmq_msg_recv(&message, socket, ZMQ_DONTWAIT) >= 0;
    if (got) {
      frames.emplace_back(static_cast<const char*>(zmq_msg_data(&message)), zmq_msg_size(&message));
    }
    more = got && zmq_msg_more(&message) != 0;
    zmq_msg_close(&message);
  }
  return frames;
}

}  // namespace

Connection::Connection(void* zmq_context, std::string endpoint, Milliseconds connect_timeout)
    : context_(zmq_context), endpoint_(std::move(endpoint)), connect_timeout_(connect_timeout) {}

Connection::~Connection() {
  if (monitor_ != nullptr) {
    zmq_socket_monitor(socket_, nullptr, 0);
    zmq_close(monitor_);
  }
  if (socket_ != nullptr) zmq_close(socket_);
}

Error Connection::unreachable() const {
  return {"unavailable", fmt::format("daemon: nobody answers at {}", endpoint_),
          "start it with: chimerad --config FILE"};
}

bool Connection::open() {
  if (socket_ != nullptr) return true;
  socket_ = zmq_socket(context_, ZMQ_DEALER);
  if (socket_ == nullptr) return false;
  const std::string events = fmt::format("inproc://lost-{}", static_cast<const void*>(this));
  // IMMEDIATE: queue on completed connections only, so that sending waits for a daemon to be there.
  bool ok = set(socket_, ZMQ_LINGER, 0) && set(socket_, ZMQ_IMMEDIATE, 1) &&
            set(socket_, ZMQ_SNDTIMEO, static_cast<int>(connect_timeout_.count())) &&
            set(socket_, ZMQ_HEARTBEAT_IVL, kHeartbeatMs) &&
            set(socket_, ZMQ_HEARTBEAT_TIMEOUT, kHeartbeatTimeoutMs) &&
            zmq_socket_monitor(socket_, events.c_str(), ZMQ_EVENT_DISCONNECTED) == 0;
  if (ok) monitor_ = zmq_socket(context_, ZMQ_PAIR);
  ok = ok && monitor_ != nullptr && set(monitor_, ZMQ_LINGER, 0) &&
       zmq_connect(monitor_, events.c_str()) == 0;
  return ok && zmq_connect(socket_, endpoint_.c_str()) == 0;
}

std::optional<Error> Connection::send(const std::string& body) {
  if (body.size() > wire::kMaxMessageBytes) {
    return Error{
        "invalid_argument",
        fmt::format("request: {} bytes (expected at most {})", body.size(), wire::kMaxMessageBytes),
        "send the text in parts"};
  }
  if (!open()) {
    return Error{"invalid_argument",
                 fmt::format("endpoint {}: {}", endpoint_, zmq_strerror(zmq_errno())),
                 "write it as ipc:///path or tcp://127.0.0.1:PORT"};
  }
  while (zmq_send(socket_, wire::kMagic.data(), wire::kMagic.size(), ZMQ_SNDMORE) < 0) {
    if (zmq_errno() != EINTR) return unreachable();
  }
  if (zmq_send(socket_, body.data(), body.size(), 0) < 0) return unreachable();
  return std::nullopt;
}

std::optional<Error> Connection::take_arrived() {
  while (true) {
    auto frames = receive_frames(socket_);
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
  zmq_pollitem_t items[] = {{socket_, 0, ZMQ_POLLIN, 0}, {monitor_, 0, ZMQ_POLLIN, 0}};
  zmq_poll(items, 2, static_cast<long>(slice.count()));
  const size_t before = arrived_.size();
  if (auto error = take_arrived()) return error;
  // What was sent before the connection broke still counts.
  if ((items[1].revents & ZMQ_POLLIN) != 0 && arrived_.size() == before) {
    receive_frames(monitor_);
    return Error{"unavailable", fmt::format("daemon: connection to {} was lost", endpoint_),
                 "look at the daemon's log; is it still running?"};
  }
  return std::nullopt;
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
    if (socket_ == nullptr) return unreachable();
    if (auto error = wait(slice)) return *error;
  }
}

}  // namespace chimera::client
