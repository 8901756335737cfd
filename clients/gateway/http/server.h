// Listens, and runs the connections on one loop.
//
// Thread safety: post(), drain() and stop() from any thread, the rest from the one that runs the
// loop.
#pragma once

#include <chrono>
#include <functional>
#include <memory>
#include <string>

#include "base/status.h"
#include "clients/gateway/http/exchange.h"
#include "clients/gateway/http/limits.h"

namespace chimera::gateway {

struct TlsFiles {
  std::string certificate;  // PEM, the chain; empty: no TLS
  std::string key;          // PEM
};

struct ServerOptions {
  std::string address = "127.0.0.1";  // an IP address
  uint16_t port = 8080;               // 0: one that is free
  TlsFiles tls;
  HttpLimits limits;
};

class Server {
 public:
  /// Binds and listens; connections are served from run() on.
  static Result<std::unique_ptr<Server>> create(ServerOptions options);
  ~Server();
  Server(const Server&) = delete;
  Server& operator=(const Server&) = delete;

  uint16_t port() const;

  /// Calls `work` on the loop.
  void post(std::function<void()> work);
  /// The same, after `delay`; never when the loop has ended by then. By the loop's thread.
  void after(std::chrono::milliseconds delay, std::function<void()> work);
  /// Serves until the last connection has ended after drain(), or stop().
  void run(HttpHandlers handlers);
  /// No more connections; idle ones end, others with the answer that is under way. Any thread.
  void drain();
  /// Cuts off everything. Any thread.
  void stop();
  size_t connections() const;

 private:
  struct Impl;
  explicit Server(std::unique_ptr<Impl> impl);
  std::unique_ptr<Impl> impl_;
};

}  // namespace chimera::gateway
