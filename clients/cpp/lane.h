// One connection of an AsyncClient with the requests that travel on it. Internal to the client
// library.
//
// Thread safety: none; by the thread of its AsyncClient.
#pragma once

#include <chrono>
#include <deque>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "chimera_client/async_client.h"
#include "chimera_client/dealer.h"

namespace chimera::client {

class Lane {
 public:
  using Clock = std::chrono::steady_clock;
  using OnEvent = AsyncClient::OnEvent;

  Lane(zmq::context_t& context, std::string endpoint, KeyFiles files, Milliseconds connect_timeout);

  size_t in_progress() const { return requests_.size(); }
  bool holds(const std::string& id) const { return requests_.contains(id); }

  /// Sends `body` now or once connected.
  void send(const std::string& id, std::string body, OnEvent on_event);
  /// Sends a message whose answer nobody waits for.
  void send(std::string body);
  /// Sockets to poll, appended to `items`.
  void watch(std::vector<zmq::pollitem_t>& items);
  /// Takes what has come, tells of it, and ends what must end by now.
  void advance();
  /// When advance() has to be called even if nothing comes.
  std::optional<Clock::time_point> due() const;

 private:
  void open();
  void take_arrived();
  void deliver(Event event);
  void transmit(const std::string& body);
  void fail_all(const Error& error);
  Error unreachable() const;

  zmq::context_t& context_;
  const std::string endpoint_;
  const KeyFiles files_;
  const Milliseconds connect_timeout_;
  std::optional<CurveKeys> keys_;    // none: no CURVE
  std::unique_ptr<Dealer> sockets_;  // null until something is sent
  Clock::time_point opened_;
  std::deque<std::string> unsent_;  // until connected
  std::map<std::string, OnEvent> requests_;
};

}  // namespace chimera::client
