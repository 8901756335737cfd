#include "chimera_client/lane.h"

#include <fmt/format.h>

#include <utility>

#include "base/json/reader.h"

namespace chimera::client {
namespace {

// Of one answer; logits come in a binary frame.
constexpr JsonLimits kLimits{.max_bytes = size_t{1} << 30, .max_values = size_t{1} << 27};

}  // namespace

Lane::Lane(zmq::context_t& context, std::string endpoint, KeyFiles files,
           Milliseconds connect_timeout)
    : context_(context),
      endpoint_(std::move(endpoint)),
      files_(std::move(files)),
      connect_timeout_(connect_timeout) {}

Error Lane::unreachable() const {
  return {"unavailable", fmt::format("daemon: nobody answers at {}", endpoint_),
          "start it with: chimerad --config FILE"};
}

void Lane::open() {
  if (sockets_ != nullptr) return;
  opened_ = Clock::now();
  auto keys = read_keys(endpoint_, files_);
  if (const auto* error = std::get_if<Error>(&keys)) {
    // Of the client's own files: whoever asked cannot do anything about it.
    return fail_all({"unavailable", error->message, error->hint});
  }
  keys_ = std::move(std::get<std::optional<CurveKeys>>(keys));
  try {
    sockets_ = std::make_unique<Dealer>(context_, endpoint_, keys_, Milliseconds(0));
  } catch (const zmq::error_t& e) {
    fail_all({"unavailable", fmt::format("endpoint {}: {}", endpoint_, e.what()),
              "write it as ipc:///path or tcp://127.0.0.1:PORT"});
  }
}

void Lane::send(const std::string& id, std::string body, OnEvent on_event) {
  requests_.emplace(id, std::move(on_event));
  send(std::move(body));
}

void Lane::send(std::string body) {
  unsent_.push_back(std::move(body));
  open();
  if (sockets_ != nullptr) advance();
}

void Lane::transmit(const std::string& body) {
  if (!send_frame(sockets_->dealer, wire::kMagic,
                  zmq::send_flags::sndmore | zmq::send_flags::dontwait) ||
      !send_frame(sockets_->dealer, body, zmq::send_flags::dontwait)) {
    fail_all({"unavailable", fmt::format("daemon: {} takes no more requests", endpoint_),
              "is it stopped? look at its log"});
  }
}

void Lane::watch(std::vector<zmq::pollitem_t>& items) {
  if (sockets_ == nullptr) return;
  items.push_back({sockets_->dealer.handle(), 0, ZMQ_POLLIN, 0});
  items.push_back({sockets_->monitor.handle(), 0, ZMQ_POLLIN, 0});
}

std::optional<Lane::Clock::time_point> Lane::due() const {
  if (sockets_ == nullptr || sockets_->state != Dealer::Connected::kNo || unsent_.empty()) {
    return std::nullopt;
  }
  return opened_ + connect_timeout_;
}

void Lane::advance() {
  if (sockets_ == nullptr) return;
  try {
    take_arrived();
    if (sockets_ == nullptr) return;
    const Dealer::Connected before = sockets_->state;
    const Dealer::Connected now = sockets_->follow();
    if (now == Dealer::Connected::kRefused) {
      const Error why = refused(endpoint_, keys_.has_value());
      return fail_all({"unavailable", why.message, why.hint});
    }
    if (now == Dealer::Connected::kLost) {
      take_arrived();  // what was sent before the connection broke still counts
      return fail_all({"unavailable", fmt::format("daemon: connection to {} was lost", endpoint_),
                       "look at the daemon's log; is it still running?"});
    }
    while (now == Dealer::Connected::kYes && sockets_ != nullptr && !unsent_.empty()) {
      const std::string body = std::move(unsent_.front());
      unsent_.pop_front();
      transmit(body);
    }
    if (before == Dealer::Connected::kNo && due() && Clock::now() >= *due())
      fail_all(unreachable());
  } catch (const zmq::error_t& e) {
    if (e.num() == EINTR) return;  // what has come is there the next time
    fail_all({"internal", fmt::format("socket to {}: {}", endpoint_, e.what()), ""});
  }
}

void Lane::take_arrived() {
  while (sockets_ != nullptr) {
    auto frames = receive_frames(sockets_->dealer);
    if (frames.empty()) return;
    Json body;
    if (frames.size() >= 2 && frames[0] == wire::kMagic) {
      auto parsed = parse_json(frames[1], kLimits);
      if (parsed.ok()) body = std::move(*parsed);
    }
    if (!body.is_object()) {
      return fail_all({"internal",
                       fmt::format("answer from {}: not a chimera/1 message", endpoint_),
                       "is it really chimerad that listens there?"});
    }
    deliver({std::move(body), frames.size() > 2 ? std::move(frames[2]) : ""});
  }
}

void Lane::deliver(Event event) {
  const auto found = requests_.find(event.id());
  if (found == requests_.end()) return;  // of a cancel, or of one that has ended
  if (!event.is_final()) return found->second(std::move(event));
  const OnEvent last = std::move(found->second);
  requests_.erase(found);  // first: the callback may send
  last(std::move(event));
}

void Lane::fail_all(const Error& error) {
  sockets_.reset();  // what was sent through them is not for the next daemon
  unsent_.clear();
  const auto ended = std::exchange(requests_, {});
  for (const auto& [id, on_event] : ended) on_event(error);
}

}  // namespace chimera::client
