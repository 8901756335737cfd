#include "clients/gateway/http/server.h"

#include <boost/asio/executor_work_guard.hpp>
#include <boost/asio/io_context.hpp>
#include <boost/asio/ip/tcp.hpp>
#include <boost/asio/steady_timer.hpp>
#include <list>

#include "base/log/log.h"
#include "clients/gateway/http/session.h"
#include "clients/gateway/http/socket_transport.h"

namespace chimera::gateway {
namespace {

namespace asio = boost::asio;
using asio::ip::tcp;
using boost::system::error_code;

// How exact deadlines of connections are; each round looks at all of them.
constexpr std::chrono::milliseconds kTick{250};
// Before accepting again when the process has no descriptors left.
constexpr std::chrono::milliseconds kPause{100};

}  // namespace

struct Server::Impl {
  explicit Impl(ServerOptions with) : options(std::move(with)) {}

  Status listen();
  void accept();
  void admit(tcp::socket socket);
  void tick();
  void drain();
  void stop();

  const ServerOptions options;
  HttpHandlers handlers;
  asio::io_context context{1};  // one thread: no locks inside
  tcp::acceptor acceptor{context};
  asio::steady_timer timer{context}, pause{context};
  std::shared_ptr<TlsContext> tls;
  std::list<std::shared_ptr<Session>> sessions;
  uint16_t port = 0;
  bool draining = false;
};

Status Server::Impl::listen() {
  const std::string where = options.address + " port " + std::to_string(options.port);
  error_code error;
  const auto address = asio::ip::make_address(options.address, error);
  if (error) {
    return Status(Code::kInvalidArgument,
                  "listen: " + options.address + " (expected an IP address and a port)",
                  "for example 127.0.0.1:8080");
  }
  const tcp::endpoint endpoint(address, options.port);
  acceptor.open(endpoint.protocol(), error);
  if (!error) acceptor.set_option(tcp::acceptor::reuse_address(true), error);
  if (!error) acceptor.bind(endpoint, error);
  if (!error) acceptor.listen(asio::socket_base::max_listen_connections, error);
  if (error) {
    return Status(Code::kUnavailable, "listen: " + where + ": " + error.message(),
                  "does another program listen there?");
  }
  port = acceptor.local_endpoint(error).port();
  if (options.tls.certificate.empty()) return {};
  auto loaded = TlsContext::load(options.tls);
  if (!loaded.ok()) return loaded.status();
  tls = std::move(*loaded);
  return {};
}

void Server::Impl::accept() {
  acceptor.async_accept([this](const error_code& error, tcp::socket socket) {
    if (draining || error == asio::error::operation_aborted) return;
    if (!error) {
      admit(std::move(socket));
      return accept();
    }
    if (error == asio::error::connection_aborted) return accept();
    log::warning("accept_failed", {{"reason", error.message()}});
    pause.expires_after(kPause);
    pause.async_wait([this](const error_code& cancelled) {
      if (!cancelled) accept();
    });
  });
}

void Server::Impl::admit(tcp::socket socket) {
  error_code ignored;
  socket.set_option(tcp::no_delay(true), ignored);  // a token is an event of its own
  auto session =
      std::make_shared<Session>(make_transport(std::move(socket), tls), options.limits, handlers);
  const bool full = sessions.size() >= options.limits.connections;
  sessions.push_back(session);
  if (full) {
    session->turn_away();
  } else {
    session->start();
  }
}

void Server::Impl::tick() {
  timer.expires_after(kTick);
  timer.async_wait([this](const error_code& cancelled) {
    if (cancelled) return;
    const auto now = Session::Clock::now();
    for (const auto& session : sessions) session->tick(now);
    std::erase_if(sessions, [](const auto& session) { return session->closed(); });
    if (draining && sessions.empty()) return context.stop();
    tick();
  });
}

void Server::Impl::drain() {
  if (draining) return;
  draining = true;
  error_code ignored;
  acceptor.close(ignored);
  for (const auto& session : sessions) session->drain();
}

void Server::Impl::stop() {
  drain();
  for (const auto& session : sessions) session->abort();
  context.stop();
}

Server::Server(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
Server::~Server() = default;

Result<std::unique_ptr<Server>> Server::create(ServerOptions options) {
  auto impl = std::make_unique<Impl>(std::move(options));
  CHIMERA_RETURN_IF_ERROR(impl->listen());
  return std::unique_ptr<Server>(new Server(std::move(impl)));
}

uint16_t Server::port() const { return impl_->port; }
size_t Server::connections() const { return impl_->sessions.size(); }

void Server::post(std::function<void()> work) {
  asio::post(impl_->context, [work = std::move(work)] { work(); });
}

void Server::after(std::chrono::milliseconds delay, std::function<void()> work) {
  const auto once = std::make_shared<asio::steady_timer>(impl_->context, delay);
  once->async_wait([once, work = std::move(work)](const error_code& cancelled) {
    if (!cancelled) work();
  });
}

void Server::run(HttpHandlers handlers) {
  impl_->handlers = std::move(handlers);
  impl_->accept();
  impl_->tick();
  impl_->context.run();
  for (const auto& session : impl_->sessions) session->abort();  // while who answers is still there
}

void Server::drain() {
  post([impl = impl_.get()] { impl->drain(); });
}

void Server::stop() {
  post([impl = impl_.get()] { impl->stop(); });
}

}  // namespace chimera::gateway
