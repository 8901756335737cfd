#include "daemon/server/socket.h"

#include <fmt/format.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>
#include <zmq.h>

#include <atomic>
#include <cerrno>
#include <cstring>

#include "clients/wire/endpoints.h"
#include "clients/wire/protocol.h"

namespace chimera {
namespace {

// An unread answer holds memory here, an unread request in the client: so few in, more out.
constexpr int kReceiveMark = 64;
constexpr int kSendMark = 256;
constexpr int kHandshakeMs = 5'000;
constexpr int kHeartbeatMs = 2'000;
constexpr int kHeartbeatTimeoutMs = 6'000;

Status zmq_status(Code code, const std::string& endpoint, const char* what, std::string hint) {
  return Status(code, fmt::format("endpoint {}: {}: {}", endpoint, what, zmq_strerror(zmq_errno())),
                std::move(hint));
}

bool daemon_answers(const sockaddr_un& address) {
  const int fd = ::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0);
  if (fd < 0) return false;
  const int rc = ::connect(fd, reinterpret_cast<const sockaddr*>(&address), sizeof address);
  const int error = errno;
  ::close(fd);
  return rc == 0 || error == EAGAIN || error == EINPROGRESS;  // EAGAIN: its backlog is full
}

/// libzmq removes whatever lies at the path before it binds, so look first.
Status check_ipc(const std::string& endpoint, const std::string& path) {
  if (path.empty() || path[0] != '/') {
    return Status(Code::kInvalidArgument,
                  fmt::format("endpoint {}: path (expected ipc:// and an absolute path)", endpoint),
                  "write it as ipc:///run/…/serve.sock");
  }
  if (path.size() > wire::kMaxIpcPath) {
    return Status(Code::kInvalidArgument,
                  fmt::format("endpoint {}: path of {} bytes (expected at most {})", endpoint,
                              path.size(), wire::kMaxIpcPath),
                  "choose a shorter directory");
  }
  struct stat found {};
  if (::lstat(path.c_str(), &found) != 0) {
    if (errno == ENOENT) return {};
    return Status(Code::kFailedPrecondition,
                  fmt::format("endpoint {}: {}", endpoint, std::strerror(errno)),
                  "check the directory and its permissions");
  }
  if (!S_ISSOCK(found.st_mode)) {
    return Status(
        Code::kFailedPrecondition,
        fmt::format("endpoint {}: another kind of file lies there (expected a socket)", endpoint),
        "remove it or choose another endpoint");
  }
  sockaddr_un address{};
  address.sun_family = AF_UNIX;
  path.copy(address.sun_path, sizeof address.sun_path - 1);
  if (daemon_answers(address)) {
    return Status(Code::kFailedPrecondition,
                  fmt::format("endpoint {}: another daemon answers there", endpoint),
                  "stop it (chimera shutdown) or give this one its own endpoints");
  }
  return {};
}

Status check_tcp(const std::string& endpoint) {
  for (const std::string_view local : {"tcp://127.", "tcp://[::1]:", "tcp://localhost:"}) {
    if (endpoint.starts_with(local)) return {};
  }
  return Status(Code::kPermissionDenied,
                fmt::format("endpoint {}: reachable from other machines (expected ipc:// or "
                            "tcp://127.0.0.1:PORT)",
                            endpoint),
                "serve other machines through a tunnel, e.g. ssh -L");
}

Status check_endpoint(const std::string& endpoint) {
  if (endpoint.starts_with("ipc://")) {
    return check_ipc(endpoint, std::string(wire::ipc_path(endpoint)));
  }
  if (endpoint.starts_with("tcp://")) return check_tcp(endpoint);
  return Status(Code::kInvalidArgument,
                fmt::format("endpoint {}: transport (expected ipc:// or tcp://)", endpoint),
                "see design of deployments: serve.endpoint");
}

bool set(void* socket, int option, int value) {
  return zmq_setsockopt(socket, option, &value, sizeof value) == 0;
}

bool configure(void* socket) {
  const auto largest = static_cast<int64_t>(wire::kMaxMessageBytes);
  return zmq_setsockopt(socket, ZMQ_MAXMSGSIZE, &largest, sizeof largest) == 0 &&
         set(socket, ZMQ_RCVHWM, kReceiveMark) && set(socket, ZMQ_SNDHWM, kSendMark) &&
         set(socket, ZMQ_HANDSHAKE_IVL, kHandshakeMs) &&
         set(socket, ZMQ_HEARTBEAT_IVL, kHeartbeatMs) &&
         set(socket, ZMQ_HEARTBEAT_TIMEOUT, kHeartbeatTimeoutMs) &&
         set(socket, ZMQ_HEARTBEAT_TTL, kHeartbeatTimeoutMs) && set(socket, ZMQ_LINGER, 0) &&
         set(socket, ZMQ_ROUTER_MANDATORY, 1) && set(socket, ZMQ_ROUTER_HANDOVER, 0);
}

/// Connects a PAIR socket to the connection events of `socket`.
void* monitor(void* context, void* socket, size_t port) {
  const std::string address = fmt::format("inproc://chimera-monitor-{}", port);
  if (zmq_socket_monitor(socket, address.c_str(), ZMQ_EVENT_DISCONNECTED) != 0) return nullptr;
  void* pair = zmq_socket(context, ZMQ_PAIR);
  if (pair == nullptr) return nullptr;
  if (set(pair, ZMQ_LINGER, 0) && zmq_connect(pair, address.c_str()) == 0) return pair;
  zmq_close(pair);
  return nullptr;
}

class Message {
 public:
  Message() { zmq_msg_init(&message_); }
  ~Message() { zmq_msg_close(&message_); }
  Message(const Message&) = delete;
  Message& operator=(const Message&) = delete;
  zmq_msg_t* get() { return &message_; }
  bool more() { return zmq_msg_more(&message_) != 0; }
  std::string copy() {
    return {static_cast<const char*>(zmq_msg_data(&message_)), zmq_msg_size(&message_)};
  }
  size_t size() { return zmq_msg_size(&message_); }

 private:
  zmq_msg_t message_;
};

using Floats = std::shared_ptr<const std::vector<float>>;

/// Keeps a binary frame alive until ZeroMQ has sent it, and then ends on a thread of ZeroMQ's. The
/// order of the two threads is libzmq's own business, so `handed` states it once more where both
/// ends are ours.
struct HeldFrame {
  Floats floats;
  std::atomic<bool> handed{false};
};

void release_frame(void*, void* hint) {
  auto* held = static_cast<HeldFrame*>(hint);
  if (held->handed.load(std::memory_order_acquire)) delete held;
}

int send_floats(void* socket, const Floats& floats) {
  auto held = std::make_unique<HeldFrame>();
  held->floats = floats;
  zmq_msg_t message;
  // ZeroMQ promises not to write; the frame is float32 little-endian as this machine stores it.
  void* data = const_cast<float*>(floats->data());
  if (zmq_msg_init_data(&message, data, floats->size() * sizeof(float), release_frame,
                        held.get()) != 0) {
    return -1;
  }
  held.release()->handed.store(true, std::memory_order_release);
  const int rc = zmq_msg_send(&message, socket, ZMQ_DONTWAIT);
  if (rc < 0) zmq_msg_close(&message);
  return rc;
}

}  // namespace

Result<std::unique_ptr<RouterSocket>> RouterSocket::bind(void* context, const std::string& endpoint,
                                                         size_t port) {
  CHIMERA_RETURN_IF_ERROR(check_endpoint(endpoint));
  auto out = std::unique_ptr<RouterSocket>(new RouterSocket());
  out->port_ = port;
  out->socket_ = zmq_socket(context, ZMQ_ROUTER);
  if (out->socket_ == nullptr || !configure(out->socket_)) {
    return zmq_status(Code::kInternal, endpoint, "socket", "check the limit of open files");
  }
  out->monitor_ = monitor(context, out->socket_, port);
  if (out->monitor_ == nullptr) {
    return zmq_status(Code::kInternal, endpoint, "monitor", "check the limit of open files");
  }
  // Mode 0600 from the first moment on; the mask is the process's, so only for this call.
  const mode_t before = ::umask(0177);
  const int rc = zmq_bind(out->socket_, endpoint.c_str());
  const int error = zmq_errno();
  ::umask(before);
  if (rc != 0) {
    errno = error;
    return zmq_status(Code::kFailedPrecondition, endpoint, "bind",
                      "check that its directory exists and that nothing else uses the address");
  }
  out->unlink_path_ = wire::ipc_path(endpoint);
  return out;
}

RouterSocket::~RouterSocket() {
  if (monitor_ != nullptr) {
    zmq_socket_monitor(socket_, nullptr, 0);
    zmq_close(monitor_);
  }
  if (socket_ != nullptr) zmq_close(socket_);
  if (!unlink_path_.empty()) ::unlink(unlink_path_.c_str());
}

void RouterSocket::set_linger(int linger_ms) { set(socket_, ZMQ_LINGER, linger_ms); }

std::optional<Incoming> RouterSocket::receive() {
  Incoming in;
  in.peer.port = port_;
  Message identity;
  if (zmq_msg_recv(identity.get(), socket_, ZMQ_DONTWAIT) < 0) return std::nullopt;
  in.peer.identity = identity.copy();
  bool more = identity.more();
  for (bool first = true; more; first = false) {
    Message frame;  // the later frames of a message are there when its first is
    if (zmq_msg_recv(frame.get(), socket_, ZMQ_DONTWAIT) < 0) break;
    more = frame.more();
    in.fd = zmq_msg_get(frame.get(), ZMQ_SRCFD);
    if (first && frame.size() == 0 && more) {
      in.peer.delimiter = true;
    } else if (in.frames.size() < Incoming::kMaxFrames) {
      in.frames.push_back(frame.copy());
    }
  }
  return in;
}

RouterSocket::Sent RouterSocket::send(const Peer& peer, const Answer& answer) {
  const auto part = [&](std::string_view bytes, bool more) {
    const int flags = ZMQ_DONTWAIT | (more ? ZMQ_SNDMORE : 0);
    return zmq_send(socket_, bytes.data(), bytes.size(), flags) >= 0;
  };
  // Only the routing frame can fail: afterwards the pipe takes the whole message.
  if (!part(peer.identity, /*more=*/true)) {
    return zmq_errno() == EAGAIN ? Sent::kFull : Sent::kGone;
  }
  bool ok = !peer.delimiter || part("", /*more=*/true);
  ok = ok && part(wire::kMagic, /*more=*/true);
  ok = ok && part(answer.body, /*more=*/answer.binary != nullptr);
  if (ok && answer.binary) ok = send_floats(socket_, answer.binary) >= 0;
  return ok ? Sent::kOk : Sent::kGone;
}

std::vector<int> RouterSocket::take_disconnected() {
  std::vector<int> ended;
  while (true) {
    Message event;
    if (zmq_msg_recv(event.get(), monitor_, ZMQ_DONTWAIT) < 0) return ended;
    const std::string bytes = event.copy();
    if (event.more()) {
      Message address;
      zmq_msg_recv(address.get(), monitor_, ZMQ_DONTWAIT);
    }
    // Frame 1: event number (16 bits), then its value (32 bits): the descriptor.
    if (bytes.size() != sizeof(uint16_t) + sizeof(int32_t)) continue;
    int32_t fd = -1;
    std::memcpy(&fd, bytes.data() + sizeof(uint16_t), sizeof fd);
    ended.push_back(fd);
  }
}

}  // namespace chimera
