#include "daemon/security/zap.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/random.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <string_view>

#include "base/log/log.h"

namespace chimera {
namespace {

constexpr const char* kZapEndpoint = "inproc://zeromq.zap.01";
constexpr std::string_view kZapVersion = "1.0";
constexpr size_t kKeyBytes = 32;

// Frames of a request: version, request id, domain, address, routing id, mechanism, credentials…
enum Field : size_t { kVersion, kRequest, kDomain, kAddress, kRoutingId, kMechanism, kKey };

// Frames of an answer.
constexpr size_t kStatus = 2;
constexpr std::string_view kAdmitted = "200";
// A peer that is refused tries again ten times a second, and may mean to.
constexpr std::chrono::seconds kLogInterval{1};

/// One property as ZMTP writes it.
std::string metadata(std::string_view name, std::string_view value) {
  std::string out(1, static_cast<char>(name.size()));
  out += name;
  out += std::string(3, '\0');
  out.push_back(static_cast<char>(value.size()));
  return out.append(value);
}

/// Whether "localhost:uid:gid:pid" is this process.
bool from_this_process(std::string_view address) {
  return address.ends_with(":" + std::to_string(::getpid()));
}

/// The user id that a request proves; empty when it is none that we take.
std::string user_of(const std::vector<std::string>& request, const Authority& authority) {
  if (request.size() <= kMechanism || request[kVersion] != kZapVersion) return "";
  if (!from_this_process(request[kAddress])) return "";
  const std::string& domain = request[kDomain];
  const std::string& mechanism = request[kMechanism];
  const size_t credentials = request.size() - kKey;
  if (domain == kFrontDomain && mechanism == "NULL" && credentials == 0) {
    return std::string(kFrontUser);
  }
  if (domain != kCurveDomain || mechanism != "CURVE" || credentials != 1 ||
      request[kKey].size() != kKeyBytes) {
    return "";
  }
  std::array<char, kKeyBytes / 4 * 5 + 1> text{};
  zmq_z85_encode(text.data(), reinterpret_cast<const uint8_t*>(request[kKey].data()), kKeyBytes);
  std::string mark = key_mark(text.data());
  return authority.find(mark) == nullptr ? "" : mark;
}

}  // namespace

std::string new_routing_id() {
  constexpr size_t kRandom = 16;
  std::string id(1 + kRandom, '\1');  // never zero first: those are libzmq's own
  size_t got = 1;
  while (got < id.size()) {
    const ssize_t n = ::getrandom(id.data() + got, id.size() - got, 0);
    if (n > 0) got += static_cast<size_t>(n);
  }
  return id;
}

std::vector<std::string> admit(const std::vector<std::string>& request,
                               const Authority& authority) {
  const std::string user = user_of(request, authority);
  const bool known = !user.empty();
  const std::string id = request.size() > kRequest ? request[kRequest] : "";
  // Version, request id, status code, status text, user id, metadata.
  return {std::string(kZapVersion),
          id,
          std::string(known ? kAdmitted : "400"),
          known ? "" : "not a client of this daemon",
          user,
          known ? metadata(kRoutingIdProperty, new_routing_id()) : ""};
}

// A ROUTER: one handshake that is broken off leaves no state that others would meet.
Admission::Admission(zmq::context_t& context, const Authority& authority)
    : authority_(authority), socket_(context, zmq::socket_type::router) {
  socket_.set(zmq::sockopt::linger, 0);
  socket_.bind(kZapEndpoint);
  stop_fd_ = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
  if (stop_fd_ < 0) throw zmq::error_t(errno);
  // Sockets may move between threads with a full fence; starting the thread is one.
  thread_ = std::thread([this] { run(); });
}

Admission::~Admission() {
  const uint64_t one = 1;
  [[maybe_unused]] const auto written = ::write(stop_fd_, &one, sizeof one);
  thread_.join();
  ::close(stop_fd_);
}

void Admission::run() {
  pthread_setname_np(pthread_self(), "chimera-zap");
  std::vector<zmq::pollitem_t> items = {{socket_.handle(), 0, ZMQ_POLLIN, 0},
                                        {nullptr, stop_fd_, ZMQ_POLLIN, 0}};
  while (true) {
    try {
      zmq::poll(items);
      if ((items[1].revents & ZMQ_POLLIN) != 0) return;
      answer_one();
    } catch (const zmq::error_t&) {  // a signal, or a handshake that was broken off
    }
  }
}

void Admission::log_refusal() {
  const auto now = std::chrono::steady_clock::now();
  ++refused_;
  if (now < next_log_) return;
  next_log_ = now + kLogInterval;
  log::warning("connection_refused", {{"reason", "its key is no client's of this daemon"},
                                      {"refused_since_last_told", refused_}});
  refused_ = 0;
}

void Admission::answer_one() {
  constexpr auto kNow = zmq::send_flags::dontwait;
  std::vector<std::string> frames;
  zmq::message_t frame;
  do {
    if (!socket_.recv(frame, zmq::recv_flags::dontwait)) return;
    frames.push_back(frame.to_string());
  } while (frame.more());
  constexpr size_t kEnvelope = 2;  // who asks, and the delimiter
  if (frames.size() < kEnvelope) return;
  const std::vector<std::string> request(frames.begin() + kEnvelope, frames.end());
  const std::vector<std::string> answer = admit(request, authority_);
  if (answer[kStatus] != kAdmitted) log_refusal();
  socket_.send(zmq::buffer(frames[0]), kNow | zmq::send_flags::sndmore);
  socket_.send(zmq::buffer(frames[1]), kNow | zmq::send_flags::sndmore);
  for (size_t i = 0; i < answer.size(); ++i) {
    const bool last = i + 1 == answer.size();
    socket_.send(zmq::buffer(answer[i]), last ? kNow : kNow | zmq::send_flags::sndmore);
  }
}

}  // namespace chimera
