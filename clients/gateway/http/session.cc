#include "clients/gateway/http/session.h"

#include <fmt/chrono.h>
#include <fmt/format.h>

#include <ctime>

namespace chimera::gateway {
namespace {

constexpr size_t kReadBytes = 8 << 10;
// Of requests that a client sends before it has read the answers of earlier ones.
constexpr size_t kMaxPipelined = 64 << 10;
// How long a refused client may go on sending before the connection is cut: without, the system
// answers what is still under way with a reset, and the client never sees the refusal.
constexpr std::chrono::seconds kLinger{2};

/// Header values are of the program or echo what a client sent: no line may end within one.
std::string one_line(std::string_view value) {
  std::string out(value);
  for (char& c : out) {
    if (static_cast<unsigned char>(c) < 0x20 || c == 0x7f) c = ' ';
  }
  return out;
}

}  // namespace

/// What the code that answers holds: outlives neither its purpose nor, by more than a call, the
/// session.
class Session::Answer : public Exchange {
 public:
  Answer(std::shared_ptr<Session> session, Request request)
      : session_(std::move(session)), request_(std::move(request)) {}
  ~Answer() override {
    // Whoever was to answer has forgotten it: never leave a client without an answer.
    if (session_ && !begun_) {
      respond(session_->handlers_.refuse(500, request_.path, "the request was not answered"));
    } else if (session_) {
      session_->abort();
    }
  }
  Answer(const Answer&) = delete;
  Answer& operator=(const Answer&) = delete;

  const Request& request() const override { return request_; }
  void respond(Response response) override {
    if (!session_ || begun_) return;
    const auto session = std::exchange(session_, nullptr);
    session->send_head(response, /*whole=*/true);
    session->push(request_.method == "HEAD" ? std::string() : std::move(response.body));
    session->answered();
  }
  void begin(Response head) override {
    if (!session_ || begun_) return;
    begun_ = true;
    session_->send_head(head, /*whole=*/false);
    write(std::move(head.body));
  }
  void write(std::string bytes) override {
    if (!session_ || bytes.empty()) return;
    const auto session = session_;
    session->push(session->chunked_ ? fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes)
                                    : std::move(bytes));
  }
  void finish() override {
    if (!session_) return;
    const auto session = std::exchange(session_, nullptr);
    if (session->chunked_) session->push("0\r\n\r\n");
    session->answered();
  }
  void on_gone(std::function<void()> told) override {
    if (session_) told_ = std::move(told);
  }

  void gone() {
    session_ = nullptr;
    if (const auto told = std::exchange(told_, nullptr)) told();
  }

 private:
  std::shared_ptr<Session> session_;  // null once answered or gone
  Request request_;
  std::function<void()> told_;
  bool begun_ = false;
};

Session::Session(std::unique_ptr<Transport> transport, const HttpLimits& limits,
                 const HttpHandlers& handlers)
    : transport_(std::move(transport)), limits_(limits), handlers_(handlers), parser_(limits) {
  enter(Stage::kHandshake);
}

void Session::enter(Stage stage) {
  stage_ = stage;
  const auto now = Clock::now();
  switch (stage) {
    case Stage::kHandshake:
    case Stage::kHead:
      deadline_ = now + limits_.header;
      break;
    case Stage::kIdle:
      deadline_ = now + limits_.idle;
      break;
    case Stage::kBody:
      deadline_ = now + limits_.body;
      break;
    case Stage::kLingering:
      deadline_ = now + kLinger;
      break;
    case Stage::kAnswering:
    case Stage::kClosed:
      deadline_ = Clock::time_point::max();
      break;
  }
}

void Session::start() {
  transport_->handshake([self = shared_from_this()](bool ok) {
    if (self->closed()) return;
    if (!ok) return self->abort();
    self->enter(Stage::kIdle);
    self->read();
  });
}

void Session::turn_away() {
  transport_->handshake([self = shared_from_this()](bool ok) {
    if (self->closed()) return;
    if (!ok) return self->abort();
    self->refuse(503, "too many connections");
  });
}

void Session::read() {
  if (reading_ || read_ended_ || stage_ == Stage::kClosed || input_.size() > kMaxPipelined) return;
  reading_ = true;
  read_buffer_.resize(kReadBytes);
  transport_->read_some(read_buffer_.data(), read_buffer_.size(),
                        [self = shared_from_this()](size_t count) { self->on_read(count); });
}

void Session::on_read(size_t count) {
  reading_ = false;
  if (stage_ == Stage::kClosed) return;
  if (count == 0) {
    read_ended_ = true;
    return client_gone();
  }
  if (stage_ != Stage::kLingering) input_.append(read_buffer_, 0, count);
  if (stage_ == Stage::kIdle) enter(Stage::kHead);
  advance();
  read();
}

void Session::advance() {
  while ((stage_ == Stage::kHead || stage_ == Stage::kBody) && !input_.empty()) {
    const auto state = parser_.feed(input_);
    if (state == RequestParser::State::kFailed) {
      return refuse(parser_.failed_status(), parser_.problem());
    }
    if (stage_ == Stage::kHead && state != RequestParser::State::kHead) {
      on_head();
      if (stage_ != Stage::kBody) return;
    }
    if (state == RequestParser::State::kDone) return dispatch();
    if (state == RequestParser::State::kHead) return;  // wants more
    if (input_.empty()) return;
  }
}

void Session::on_head() {
  Request& request = parser_.request();
  request.peer = transport_->peer();
  request.secure = transport_->secure();
  chunked_ = parser_.chunked_answers();
  Admission admission = handlers_.admit(request);
  extra_headers_ = std::move(admission.headers);
  if (admission.refusal) {
    // A request without a body is over: the connection may go on.
    close_after_ = parser_.state() != RequestParser::State::kDone || !parser_.keep_alive();
    enter(Stage::kAnswering);
    send_head(*admission.refusal, /*whole=*/true);
    push(request.method == "HEAD" ? std::string() : std::move(admission.refusal->body));
    return answered();
  }
  enter(Stage::kBody);
  if (parser_.expects_continue() && parser_.state() == RequestParser::State::kBody) {
    push("HTTP/1.1 100 Continue\r\n\r\n");
  }
}

void Session::dispatch() {
  close_after_ = !parser_.keep_alive();
  complete_ = false;
  auto answer = std::make_shared<Answer>(shared_from_this(), std::move(parser_.request()));
  answer_ = answer;
  enter(Stage::kAnswering);
  handlers_.handle(std::move(answer));
}

void Session::refuse(unsigned status, std::string_view problem) {
  close_after_ = true;
  enter(Stage::kAnswering);
  Response response = handlers_.refuse(status, parser_.request().path, problem);
  send_head(response, /*whole=*/true);
  push(std::move(response.body));
  answered();
}

void Session::send_head(const Response& response, bool whole) {
  if (draining_) close_after_ = true;
  streaming_ = !whole;
  // Without chunks, the end of a stream is the end of the connection.
  if (!whole && !chunked_) close_after_ = true;
  std::string head =
      fmt::format("HTTP/1.1 {} {}\r\ndate: {:%a, %d %b %Y %H:%M:%S} GMT\r\n", response.status,
                  reason_phrase(response.status), fmt::gmtime(std::time(nullptr)));
  const auto add = [&head](std::string_view name, std::string_view value) {
    fmt::format_to(std::back_inserter(head), "{}: {}\r\n", name, one_line(value));
  };
  if (response.status != 204) add("content-type", response.content_type);
  if (whole && response.status != 204) {
    add("content-length", std::to_string(response.body.size()));
  } else if (!whole && chunked_) {
    add("transfer-encoding", "chunked");
  }
  add("connection", close_after_ ? "close" : "keep-alive");
  for (const auto& [name, value] : response.headers) add(name, value);
  for (const auto& [name, value] : extra_headers_) add(name, value);
  push(head + "\r\n");
}

void Session::push(std::string bytes) {
  if (stage_ == Stage::kClosed || bytes.empty()) return;
  if (writing_) {
    queued_ += bytes;
  } else {
    output_ = std::move(bytes);
    output_at_ = 0;
  }
  // An answer of known size may wait as a whole; a stream is cut off where nobody reads it.
  if (streaming_ && queued_.size() > limits_.unread_bytes) return abort();
  if (!writing_) write();
}

void Session::write() {
  writing_ = true;
  write_deadline_ = Clock::now() + limits_.write;
  transport_->write_some(output_.data() + output_at_, output_.size() - output_at_,
                         [self = shared_from_this()](size_t count) { self->on_written(count); });
}

void Session::on_written(size_t count) {
  writing_ = false;
  write_deadline_.reset();
  if (stage_ == Stage::kClosed) return;
  if (count == 0) return abort();
  output_at_ += count;
  if (output_at_ == output_.size()) {
    output_ = std::exchange(queued_, {});
    output_at_ = 0;
  }
  if (!output_.empty()) return write();
  if (complete_) answered();
}

/// Called when the answer is complete, and again when all of it is written.
void Session::answered() {
  complete_ = true;
  if (stage_ != Stage::kAnswering || writing_) return;
  answer_.reset();
  extra_headers_.clear();
  complete_ = false;
  if (close_after_ || draining_) {
    transport_->end_sending();
    input_.clear();
    enter(Stage::kLingering);
    if (read_ended_) return abort();
    return read();
  }
  parser_.reset();
  enter(input_.empty() ? Stage::kIdle : Stage::kHead);
  advance();
  read();
}

void Session::client_gone() {
  // What was asked for may be written still, but nobody waits for what is not there yet.
  if (stage_ == Stage::kAnswering && complete_) {
    close_after_ = true;
    return;
  }
  abort();
}

void Session::drain() {
  draining_ = true;
  if (stage_ == Stage::kIdle || stage_ == Stage::kHandshake) abort();
}

void Session::abort() {
  if (stage_ == Stage::kClosed) return;
  const auto self = shared_from_this();
  enter(Stage::kClosed);
  write_deadline_.reset();
  transport_->close();
  queued_.clear();
  input_.clear();
  if (const auto answer = answer_.lock()) answer->gone();
}

void Session::tick(Clock::time_point now) {
  if (stage_ == Stage::kClosed) return;
  if (write_deadline_ && now >= *write_deadline_) return abort();
  if (now < deadline_) return;
  if (stage_ == Stage::kHead || stage_ == Stage::kBody) {
    return refuse(408, "the request took too long to arrive");
  }
  abort();
}

}  // namespace chimera::gateway
