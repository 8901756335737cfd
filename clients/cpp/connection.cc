#include "chimera_client/connection.h"

#include <fmt/format.h>

#include <algorithm>
#include <vector>

#include "base/json/reader.h"
#include "chimera_client/dealer.h"

namespace chimera::client {
namespace {

// A routing trace of a long text has tens of millions of numbers.
constexpr JsonLimits kLimits{.max_bytes = size_t{1} << 30, .max_values = size_t{1} << 27};
// How long an interrupt may go unnoticed.
constexpr Milliseconds kSlice{50};

}  // namespace

struct Connection::Sockets : Dealer {
  using Dealer::Dealer;
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
  return refused(endpoint_, keys_.has_value());
}

std::optional<Error> Connection::open() {
  if (sockets_ != nullptr) return std::nullopt;
  if (!keys_) {
    auto read = read_keys(endpoint_, files_);
    if (auto* error = std::get_if<Error>(&read)) return std::move(*error);
    keys_ = std::move(std::get<std::optional<CurveKeys>>(read));
  }
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
