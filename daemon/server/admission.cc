#include "daemon/server/admission.h"

#include <pthread.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include <cerrno>
#include <string_view>

namespace chimera {
namespace {

constexpr const char* kZapEndpoint = "inproc://zeromq.zap.01";
constexpr std::string_view kZapVersion = "1.0";

// Frames of a request: version, request id, domain, address, routing id, mechanism, credentials…
enum Field : size_t { kVersion, kRequest, kDomain, kAddress, kRoutingId, kMechanism, kFields };

std::string refusal(const std::vector<std::string>& request) {
  if (request.size() < kFields || request[kVersion] != kZapVersion) return "no ZAP 1.0 request";
  if (request[kDomain] != kAdmissionDomain) return "unknown domain";
  if (request[kMechanism] != "NULL") return "unknown mechanism";
  if (!request[kRoutingId].empty()) return "routing ids are given by the daemon";
  return "";
}

}  // namespace

std::vector<std::string> admit(const std::vector<std::string>& request) {
  const std::string why = refusal(request);
  const std::string id = request.size() > kRequest ? request[kRequest] : "";
  // Version, request id, status code, status text, user id, metadata.
  return {std::string(kZapVersion), id, why.empty() ? "200" : "400", why, "", ""};
}

// A ROUTER: one handshake that is broken off leaves no state that others would meet.
Admission::Admission(zmq::context_t& context) : socket_(context, zmq::socket_type::router) {
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
  const auto begin = frames.begin() + kEnvelope;
  const std::vector<std::string> answer = admit({begin, frames.end()});
  socket_.send(zmq::buffer(frames[0]), kNow | zmq::send_flags::sndmore);
  socket_.send(zmq::buffer(frames[1]), kNow | zmq::send_flags::sndmore);
  for (size_t i = 0; i < answer.size(); ++i) {
    const bool last = i + 1 == answer.size();
    socket_.send(zmq::buffer(answer[i]), last ? kNow : kNow | zmq::send_flags::sndmore);
  }
}

}  // namespace chimera
