#include "daemon/server/socket.h"

#include <fmt/format.h>
#include <sys/random.h>

#include <algorithm>
#include <atomic>
#include <cstdlib>
#include <cstring>
#include <deque>
#include <map>
#include <zmq.hpp>

#include "base/log/log.h"
#include "clients/wire/protocol.h"
#include "daemon/security/zap.h"

namespace chimera {
namespace {

// An unread answer holds memory here, an unread request in the client: so few in, more out.
constexpr int kReceiveMark = 64;
constexpr int kSendMark = 256;
constexpr int kBacklog = 4096;  // a burst of connections is the front's to limit
constexpr int kHandshakeMs = 5'000;
constexpr int kHeartbeatMs = 2'000;
constexpr int kHeartbeatTimeoutMs = 6'000;
// Ended connections whose late messages are told from those of the next with the descriptor. One
// forgotten too early is still answered as itself: only what it sent counts as the next one's.
constexpr size_t kGone = 1024;

void configure(zmq::socket_t& socket) {
  namespace option = zmq::sockopt;
  socket.set(option::maxmsgsize, static_cast<int64_t>(wire::kMaxMessageBytes));
  socket.set(option::rcvhwm, kReceiveMark);
  socket.set(option::sndhwm, kSendMark);
  socket.set(option::backlog, kBacklog);
  socket.set(option::handshake_ivl, kHandshakeMs);
  socket.set(option::heartbeat_ivl, kHeartbeatMs);
  socket.set(option::heartbeat_timeout, kHeartbeatTimeoutMs);
  socket.set(option::heartbeat_ttl, kHeartbeatTimeoutMs);
  socket.set(option::linger, 0);
  socket.set(option::router_mandatory, true);
  socket.set(option::router_handover, false);
}

/// Every socket has a domain, so that libzmq asks our own handler about every handshake (it is
/// there before the sockets and goes after them), and refuses peers of another mechanism and
/// versions of the protocol without a handshake.
void secure(zmq::socket_t& socket, const std::string& secret_key) {
  namespace option = zmq::sockopt;
  socket.set(option::zap_domain, secret_key.empty() ? kFrontDomain : kCurveDomain);
  if (secret_key.empty()) return;
  socket.set(option::curve_server, true);
  socket.set(option::curve_secretkey, secret_key);
}

/// What libzmq knows of the connection of a frame; "" when it knows nothing.
std::string property(const zmq::message_t& frame, const char* name) {
  const char* value = zmq_msg_gets(frame.handle(), name);
  return value == nullptr ? "" : value;
}

/// A PAIR socket with the beginnings and ends of connections to `socket`. (zmq::monitor_t cannot be
/// polled beside other sockets.)
zmq::socket_t monitor_of(zmq::socket_t& socket, zmq::context_t& context, size_t port) {
  const std::string address = fmt::format("inproc://chimera-monitor-{}", port);
  if (zmq_socket_monitor(socket.handle(), address.c_str(),
                         ZMQ_EVENT_ACCEPTED | ZMQ_EVENT_DISCONNECTED) != 0) {
    throw zmq::error_t();
  }
  zmq::socket_t pair(context, zmq::socket_type::pair);
  pair.set(zmq::sockopt::linger, 0);
  pair.connect(address);
  return pair;
}

/// Keeps a large frame, and its place in the account of its client, until ZeroMQ has sent it, and
/// then ends on a thread of ZeroMQ's. The order of the two threads is libzmq's own business, so
/// `handed` states it once more where both ends are ours.
struct HeldFrame {
  std::shared_ptr<const void> bytes;
  std::shared_ptr<const OutputHold> output;
  std::atomic<bool> handed{false};
};

void release_frame(void*, void* hint) {
  auto* held = static_cast<HeldFrame*>(hint);
  if (held->handed.load(std::memory_order_acquire)) delete held;
}

/// `bytes` keeps `size` bytes at `data` alive.
bool send_held(zmq::socket_t& socket, std::shared_ptr<const void> bytes, const void* data,
               size_t size, zmq::send_flags flags, std::shared_ptr<const OutputHold> output) {
  auto held = std::make_unique<HeldFrame>();
  held->bytes = std::move(bytes);
  held->output = std::move(output);
  // ZeroMQ promises not to write.
  zmq::message_t message(const_cast<void*>(data), size, release_frame, held.get());
  held.release()->handed.store(true, std::memory_order_release);
  return socket.send(std::move(message), flags).has_value();
}

bool send_body(zmq::socket_t& socket, const Answer& answer) {
  const auto flags = answer.binary != nullptr ? zmq::send_flags::dontwait | zmq::send_flags::sndmore
                                              : zmq::send_flags::dontwait;
  if (answer.output == nullptr) return socket.send(zmq::buffer(answer.body), flags).has_value();
  const auto text = std::make_shared<const std::string>(answer.body);
  return send_held(socket, text, text->data(), text->size(), flags, answer.output);
}

/// The frame is float32 little-endian, as this machine stores it.
bool send_floats(zmq::socket_t& socket, const Answer& answer) {
  const auto& floats = answer.binary;
  return send_held(socket, floats, floats->data(), floats->size() * sizeof(float),
                   zmq::send_flags::dontwait, answer.output);
}

}  // namespace

class SocketContext {
 public:
  explicit SocketContext(const Authority& authority) : admission(zmq, authority) {}
  zmq::context_t zmq;
  Admission admission;
};

Result<std::shared_ptr<SocketContext>> make_socket_context(const Authority& authority) {
  // libzmq numbers peers without a routing id of ours from rand() on, and never seeds it. There
  // should be none such; if there is one, nobody can claim its number.
  unsigned seed = 0;
  if (::getrandom(&seed, sizeof seed, 0) == sizeof seed) ::srand(seed);
  try {
    return std::make_shared<SocketContext>(authority);
  } catch (const zmq::error_t& e) {
    return Status(Code::kResourceExhausted, fmt::format("server: no ZeroMQ context: {}", e.what()),
                  "raise the limit of open files");
  }
}

/// Ends in reverse order: monitor, socket, and the context if nobody else holds it.
struct RouterSocket::Impl {
  std::shared_ptr<SocketContext> context;
  size_t port = 0;
  Front* front = nullptr;
  struct Connected {
    FrontPeer front;
    std::string identity;  // "" before its first message
  };
  std::map<int, Connected> peers;  // by descriptor
  std::vector<int> ended;          // descriptors not yet told
  std::deque<std::string> gone;    // routing ids of the last kGone that ended
  zmq::socket_t socket, monitor;

  void read_events();
  /// The connection with that descriptor, if the routing id is its own; null when it is that of one
  /// that had the descriptor before.
  const FrontPeer* connection_of(int fd, const std::string& identity);
};

RouterSocket::RouterSocket(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}

Result<std::unique_ptr<RouterSocket>> RouterSocket::bind(std::shared_ptr<SocketContext> context,
                                                         const std::string& path, size_t port,
                                                         const std::string& secret_key) {
  const auto failed = [&](Code code, const char* what, const zmq::error_t& e, const char* hint) {
    return Status(code, fmt::format("socket {}: {}: {}", path, what, e.what()), hint);
  };
  auto impl = std::make_unique<Impl>();
  impl->context = std::move(context);
  impl->port = port;
  try {
    impl->socket = zmq::socket_t(impl->context->zmq, zmq::socket_type::router);
    configure(impl->socket);
    secure(impl->socket, secret_key);
    impl->monitor = monitor_of(impl->socket, impl->context->zmq, port);
  } catch (const zmq::error_t& e) {
    return failed(Code::kInternal, "socket", e, "check the limit of open files");
  }
  try {
    impl->socket.bind("ipc://" + path);
  } catch (const zmq::error_t& e) {
    return failed(Code::kFailedPrecondition, "bind", e,
                  "is the state directory on a file system that has sockets?");
  }
  return std::unique_ptr<RouterSocket>(new RouterSocket(std::move(impl)));
}

RouterSocket::~RouterSocket() {
  // First: events for a PAIR that is gone would block ZeroMQ's own thread.
  zmq_socket_monitor(impl_->socket.handle(), nullptr, 0);
  impl_->monitor.close();
  impl_->socket.close();
}

void RouterSocket::wait(std::span<const std::unique_ptr<RouterSocket>> sockets, int fd,
                        std::optional<std::chrono::milliseconds> timeout) {
  std::vector<zmq::pollitem_t> items = {{nullptr, fd, ZMQ_POLLIN, 0}};
  for (const auto& socket : sockets) {
    items.push_back({socket->impl_->socket.handle(), 0, ZMQ_POLLIN, 0});
    items.push_back({socket->impl_->monitor.handle(), 0, ZMQ_POLLIN, 0});
  }
  try {
    zmq::poll(items, timeout.value_or(std::chrono::milliseconds(-1)));
  } catch (const zmq::error_t&) {  // EINTR: just look around
  }
}

void RouterSocket::set_linger(std::chrono::milliseconds limit) {
  try {
    impl_->socket.set(zmq::sockopt::linger, static_cast<int>(limit.count()));
  } catch (const zmq::error_t&) {  // it stays what it was: nothing is waited for
  }
}

std::optional<Incoming> RouterSocket::receive() {
  constexpr auto kNow = zmq::recv_flags::dontwait;
  Incoming in;
  in.peer.port = impl_->port;
  try {
    zmq::message_t frame;
    if (!impl_->socket.recv(frame, kNow)) return std::nullopt;
    in.peer.identity = frame.to_string();
    // Of its connection the beginning was told before, and of one that had the descriptor its end.
    impl_->read_events();
    for (bool first = true; frame.more(); first = false) {
      // The later frames of a message are there when its first is.
      if (!impl_->socket.recv(frame, kNow)) break;
      in.fd = frame.get(ZMQ_SRCFD);
      in.cost += FrameMeter::cost_of(frame.size());
      if (first) {
        in.peer.mark = property(frame, "User-Id");
        if (in.peer.mark == kFrontUser) in.peer.mark = property(frame, kMarkProperty);
      }
      if (first && frame.empty() && frame.more()) {
        in.peer.delimiter = true;
      } else if (in.frames.size() < Incoming::kMaxFrames) {
        in.frames.push_back(frame.to_string());
      }
    }
  } catch (const zmq::error_t&) {
    return std::nullopt;
  }
  if (const FrontPeer* peer = impl_->connection_of(in.fd, in.peer.identity)) {
    in.peer.address = peer->address;
  }
  return in;
}

bool RouterSocket::connected(const Incoming& incoming) {
  return impl_->connection_of(incoming.fd, incoming.peer.identity) != nullptr;
}

const FrontPeer* RouterSocket::Impl::connection_of(int fd, const std::string& identity) {
  const auto peer = peers.find(fd);
  if (peer == peers.end()) return nullptr;
  Connected& found = peer->second;
  if (found.identity != identity) {
    if (std::find(gone.begin(), gone.end(), identity) != gone.end()) return nullptr;
    // Its first message. (Or the first of one that ended before any was received: whoever sends
    // under another routing id takes the place back.)
    found.identity = identity;
  }
  return &found.front;
}

void RouterSocket::took(int fd, uint64_t cost) {
  const auto peer = impl_->peers.find(fd);
  if (peer != impl_->peers.end()) impl_->front->took(peer->second.front, cost);
}

RouterSocket::Sent RouterSocket::send(const Peer& peer, const Answer& answer) {
  const auto part = [&](std::string_view bytes, bool more) {
    const auto flags =
        more ? zmq::send_flags::dontwait | zmq::send_flags::sndmore : zmq::send_flags::dontwait;
    return impl_->socket.send(zmq::buffer(bytes), flags).has_value();
  };
  try {
    // Only the routing frame can fail: afterwards the pipe takes the whole message.
    if (!part(peer.identity, /*more=*/true)) return Sent::kFull;
    bool ok = !peer.delimiter || part("", /*more=*/true);
    ok = ok && part(wire::kMagic, /*more=*/true);
    ok = ok && send_body(impl_->socket, answer);
    if (ok && answer.binary) ok = send_floats(impl_->socket, answer);
    return ok ? Sent::kOk : Sent::kGone;
  } catch (const zmq::error_t&) {  // no such peer any more
    return Sent::kGone;
  }
}

void RouterSocket::attach(Front* front) { impl_->front = front; }

void RouterSocket::hang_up(int fd) {
  const auto peer = impl_->peers.find(fd);
  if (peer != impl_->peers.end()) impl_->front->hang_up(peer->second.front.number);
}

std::vector<int> RouterSocket::take_disconnected() {
  impl_->read_events();
  return std::exchange(impl_->ended, {});
}

void RouterSocket::Impl::read_events() {
  constexpr auto kNow = zmq::recv_flags::dontwait;
  try {
    zmq::message_t event, address;
    while (monitor.recv(event, kNow)) {
      if (event.more() && !monitor.recv(address, kNow)) break;
      // Event number (16 bits), then its value (32 bits): the descriptor.
      if (event.size() != sizeof(uint16_t) + sizeof(int32_t)) continue;
      uint16_t what = 0;
      int32_t fd = -1;
      std::memcpy(&what, event.data(), sizeof what);
      std::memcpy(&fd, event.data<char>() + sizeof what, sizeof fd);
      if (what == ZMQ_EVENT_ACCEPTED) {
        log::debug("connection_opened",
                   {{"endpoint", port == 0 ? "serve" : "control"}, {"fd", fd}});
        if (auto peer = front->next_accepted(port)) peers[fd] = {std::move(*peer), ""};
      } else {
        log::debug("connection_closed",
                   {{"endpoint", port == 0 ? "serve" : "control"}, {"fd", fd}});
        if (const auto peer = peers.find(fd); peer != peers.end()) {
          if (!peer->second.identity.empty()) gone.push_back(std::move(peer->second.identity));
          if (gone.size() > kGone) gone.pop_front();
          peers.erase(peer);
        }
        ended.push_back(fd);
      }
    }
  } catch (const zmq::error_t&) {  // what has been read counts
  }
}

}  // namespace chimera
