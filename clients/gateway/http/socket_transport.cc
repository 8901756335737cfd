#include "clients/gateway/http/socket_transport.h"

#include <boost/asio/ssl.hpp>

namespace chimera::gateway {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

std::string address_of(const tcp::socket& socket) {
  error_code error;
  const auto endpoint = socket.remote_endpoint(error);
  return error ? std::string() : endpoint.address().to_string();
}

class PlainTransport : public Transport {
 public:
  explicit PlainTransport(tcp::socket socket)
      : socket_(std::move(socket)), peer_(address_of(socket_)) {}

  void read_some(char* into, size_t most, Done done) override {
    socket_.async_read_some(asio::buffer(into, most),
                            [done = std::move(done)](const error_code& error, size_t count) {
                              done(error ? 0 : count);
                            });
  }
  void write_some(const char* from, size_t count, Done done) override {
    socket_.async_write_some(asio::buffer(from, count),
                             [done = std::move(done)](const error_code& error, size_t written) {
                               done(error ? 0 : written);
                             });
  }
  void handshake(std::function<void(bool)> done) override {
    asio::post(socket_.get_executor(), [done = std::move(done)] { done(true); });
  }
  void end_sending() override {
    error_code ignored;
    socket_.shutdown(tcp::socket::shutdown_send, ignored);
  }
  void close() override {
    error_code ignored;
    socket_.close(ignored);
  }
  std::string peer() const override { return peer_; }
  bool secure() const override { return false; }

 private:
  tcp::socket socket_;
  const std::string peer_;
};

class LoadedTls : public TlsContext {
 public:
  LoadedTls() : context(asio::ssl::context::tls_server) {}
  asio::ssl::context context;
};

class TlsTransport : public Transport {
 public:
  TlsTransport(tcp::socket socket, std::shared_ptr<LoadedTls> tls)
      : tls_(std::move(tls)),
        stream_(std::move(socket), tls_->context),
        peer_(address_of(stream_.next_layer())) {}

  void read_some(char* into, size_t most, Done done) override {
    stream_.async_read_some(asio::buffer(into, most),
                            [done = std::move(done)](const error_code& error, size_t count) {
                              done(error ? 0 : count);
                            });
  }
  void write_some(const char* from, size_t count, Done done) override {
    stream_.async_write_some(asio::buffer(from, count),
                             [done = std::move(done)](const error_code& error, size_t written) {
                               done(error ? 0 : written);
                             });
  }
  void handshake(std::function<void(bool)> done) override {
    stream_.async_handshake(asio::ssl::stream_base::server,
                            [done = std::move(done)](const error_code& error) { done(!error); });
  }
  void end_sending() override {
    // close_notify goes out at once or not at all: nobody waits for the other side's.
    SSL_shutdown(stream_.native_handle());
    error_code ignored;
    stream_.next_layer().shutdown(tcp::socket::shutdown_send, ignored);
  }
  void close() override {
    error_code ignored;
    stream_.next_layer().close(ignored);
  }
  std::string peer() const override { return peer_; }
  bool secure() const override { return true; }

 private:
  std::shared_ptr<LoadedTls> tls_;  // outlives the stream
  asio::ssl::stream<tcp::socket> stream_;
  const std::string peer_;
};

}  // namespace

Result<std::shared_ptr<TlsContext>> TlsContext::load(const TlsFiles& files) {
  auto tls = std::make_shared<LoadedTls>();
  error_code error;
  tls->context.set_options(asio::ssl::context::no_tlsv1 | asio::ssl::context::no_tlsv1_1, error);
  tls->context.use_certificate_chain_file(files.certificate, error);
  if (error) {
    return Status(
        Code::kInvalidArgument,
        "tls.certificate: " + files.certificate + " (expected a chain of certificates, PEM)",
        "the server's own certificate comes first in it");
  }
  tls->context.use_private_key_file(files.key, asio::ssl::context::pem, error);
  if (error) {
    return Status(Code::kInvalidArgument,
                  "tls.key: " + files.key + " (expected the private key of the certificate, PEM)",
                  "without a passphrase");
  }
  return std::shared_ptr<TlsContext>(std::move(tls));
}

std::unique_ptr<Transport> make_transport(tcp::socket socket,
                                          const std::shared_ptr<TlsContext>& tls) {
  if (tls == nullptr) return std::make_unique<PlainTransport>(std::move(socket));
  return std::make_unique<TlsTransport>(std::move(socket),
                                        std::static_pointer_cast<LoadedTls>(tls));
}

}  // namespace chimera::gateway
