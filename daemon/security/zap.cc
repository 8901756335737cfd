#include "daemon/security/zap.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <charconv>
#include <optional>
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

/// The user of "localhost:uid:gid:pid".
std::optional<uid_t> peer_user(std::string_view address) {
  for (int i = 0; i < 2; ++i) {
    const size_t colon = address.rfind(':');
    if (colon == std::string_view::npos) return std::nullopt;
    address = address.substr(0, colon);
  }
  const size_t colon = address.rfind(':');
  if (colon == std::string_view::npos) return std::nullopt;
  address.remove_prefix(colon + 1);
  uid_t uid = 0;
  const auto [end, error] = std::from_chars(address.data(), address.data() + address.size(), uid);
  if (error != std::errc() || end != address.data() + address.size()) return std::nullopt;
  return uid;
}

/// The mark that a request proves; empty when it is none that we take.
std::string mark_of(const std::vector<std::string>& request) {
  if (request.size() <= kMechanism || request[kVersion] != kZapVersion) return "";
  const std::string& domain = request[kDomain];
  const std::string& mechanism = request[kMechanism];
  const size_t credentials = request.size() - kKey;
  if (domain == kCurveDomain && mechanism == "CURVE" && credentials == 1 &&
      request[kKey].size() == kKeyBytes) {
    std::array<char, kKeyBytes / 4 * 5 + 1> text{};
    zmq_z85_encode(text.data(), reinterpret_cast<const uint8_t*>(request[kKey].data()), kKeyBytes);
    return key_mark(text.data());
  }
  if (mechanism != "NULL" || credentials != 0) return "";
  if (domain == kLoopbackDomain) return std::string(kLoopbackMark);
  if (domain != kIpcDomain) return "";
  const auto uid = peer_user(request[kAddress]);
  return uid ? uid_mark(*uid) : "";
}

}  // namespace

std::vector<std::string> admit(const std::vector<std::string>& request,
                               const Authority& authority) {
  const std::string mark = mark_of(request);
  const bool known = !mark.empty() && authority.find(mark) != nullptr;
  const std::string id = request.size() > kRequest ? request[kRequest] : "";
  // Version, request id, status code, status text, user id, metadata.
  return {std::string(kZapVersion),
          id,
          std::string(known ? kAdmitted : "400"),
          known ? "" : "not a client of this daemon",
          known ? mark : "",
          ""};
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

void Admission::log_refusal(const std::vector<std::string>& request) {
  const auto now = std::chrono::steady_clock::now();
  ++refused_;
  if (now < next_log_) return;
  next_log_ = now + kLogInterval;
  const std::string mark = mark_of(request);
  log::warning("connection_refused",
               {{"peer", request.size() > kAddress ? request[kAddress] : ""},
                {"mark", mark},
                {"reason", mark.empty() ? "no way to be known" : "no client of this daemon"},
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
  if (answer[kStatus] != kAdmitted) log_refusal(request);
  socket_.send(zmq::buffer(frames[0]), kNow | zmq::send_flags::sndmore);
  socket_.send(zmq::buffer(frames[1]), kNow | zmq::send_flags::sndmore);
  for (size_t i = 0; i < answer.size(); ++i) {
    const bool last = i + 1 == answer.size();
    socket_.send(zmq::buffer(answer[i]), last ? kNow : kNow | zmq::send_flags::sndmore);
  }
}

}  // namespace chimera
