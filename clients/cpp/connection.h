// One DEALER socket to one endpoint. Internal to the client library. ZeroMQ itself (cppzmq) is seen
// through dealer.h alone.
//
// Thread safety: none; by the thread of its Client.
#pragma once

#include <deque>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "chimera_client/client.h"
#include "chimera_client/curve.h"

namespace zmq {
class context_t;
}

namespace chimera::client {

/// ZeroMQ's context, shared by the connections of a client, which it outlives. Made when the first
/// of them opens.
class Context {
 public:
  Context();
  ~Context();
  Context(const Context&) = delete;
  Context& operator=(const Context&) = delete;

 private:
  friend class Connection;
  zmq::context_t& get();  // throws zmq::error_t
  std::unique_ptr<zmq::context_t> made_;
};

class Connection {
 public:
  Connection(Context& context, std::string endpoint, KeyFiles keys, Milliseconds connect_timeout);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  std::optional<Error> send(const std::string& body);
  /// The first event that `wanted` takes; the others are kept.
  Result<Event> receive(const std::function<bool(const Event&)>& wanted,
                        std::optional<Milliseconds> timeout, const Interrupt& interrupt);

 private:
  struct Sockets;
  std::optional<Error> open();
  /// Whether a daemon is there within the connect timeout.
  bool connected();
  std::optional<Error> take_arrived();
  std::optional<Error> wait(Milliseconds slice);
  Error unreachable() const;
  /// Why connected() said no.
  Error not_connected() const;

  Context& context_;
  const std::string endpoint_;
  const KeyFiles files_;
  const Milliseconds connect_timeout_;
  std::optional<CurveKeys> keys_;     // none: no CURVE
  std::unique_ptr<Sockets> sockets_;  // null until something is sent
  std::deque<Event> arrived_;
};

}  // namespace chimera::client
