// One DEALER socket to one endpoint. Internal to the client library.
//
// Thread safety: none; by the thread of its Client.
#pragma once

#include <deque>
#include <functional>
#include <optional>
#include <string>

#include "chimera_client/client.h"

namespace chimera::client {

class Connection {
 public:
  Connection(void* zmq_context, std::string endpoint, Milliseconds connect_timeout);
  ~Connection();
  Connection(const Connection&) = delete;
  Connection& operator=(const Connection&) = delete;

  std::optional<Error> send(const std::string& body);
  /// The first event that `wanted` takes; the others are kept.
  Result<Event> receive(const std::function<bool(const Event&)>& wanted,
                        std::optional<Milliseconds> timeout, const Interrupt& interrupt);

 private:
  bool open();
  std::optional<Error> take_arrived();
  std::optional<Error> wait(Milliseconds slice);
  Error unreachable() const;

  void* const context_;
  const std::string endpoint_;
  const Milliseconds connect_timeout_;
  void* socket_ = nullptr;
  void* monitor_ = nullptr;
  std::deque<Event> arrived_;
};

}  // namespace chimera::client
