// Transports over TCP sockets. Internal to this room: shows Asio.
//
// Thread safety: by the thread of the loop.
#pragma once

#include <boost/asio/ip/tcp.hpp>
#include <memory>

#include "base/status.h"
#include "clients/gateway/http/server.h"
#include "clients/gateway/http/transport.h"

namespace chimera::gateway {

/// Certificate and key, ready for use.
class TlsContext {
 public:
  static Result<std::shared_ptr<TlsContext>> load(const TlsFiles& files);
  virtual ~TlsContext() = default;
};

/// `tls` null: plain.
std::unique_ptr<Transport> make_transport(boost::asio::ip::tcp::socket socket,
                                          const std::shared_ptr<TlsContext>& tls);

}  // namespace chimera::gateway
