#include "clients/gateway/http/session.h"

#include <fmt/format.h>

#include <utility>

#include "clients/gateway/http/response_head.h"
#include "clients/gateway/http/session_answer.h"
#include "clients/gateway/http/trace.h"

namespace chimera::gateway {
namespace {

constexpr size_t kReadBytes = 8 << 10;
// Of requests that a client sends before it has read the answers of earlier ones.
constexpr size_t kMaxPipelined = 64 << 10;
// How long a refused client may go on sending before the connection is cut: without, the system
// answers what is still under way with a reset, and the client never sees the refusal.
constexpr std::chrono::seconds kLinger{2};

}  // namespace

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
  request.traceparent = trace_of(request.headers);
  chunked_ = parser_.chunked_answers();
  Admission admission = handlers_.admit(request);
  extra_headers_ = std::move(admission.headers);
  extra_headers_.emplace_back("traceparent", request.traceparent);
  if (admission.refusal) {
    // A request without a body is over: the connection may go on.
    close_after_ = parser_.state() != RequestParser::State::kDone || !parser_.keep_alive();
    enter(Stage::kAnswering);
    send_whole(*admission.refusal, request.method == "HEAD");
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
  send_whole(handlers_.refuse(status, parser_.request().path, problem), /*head_alone=*/false);
  answered();
}

void Session::send_whole(const Response& response, bool head_alone) {
  std::string bytes = head_of(response, /*whole=*/true);
  if (!head_alone) bytes += response.body;
  push(std::move(bytes));
}

void Session::send_stream(Response& head) {
  std::string bytes = head_of(head, /*whole=*/false);
  bytes += chunk(std::move(head.body));
  push(std::move(bytes));
}

std::string Session::chunk(std::string bytes) const {
  return chunked_ && !bytes.empty() ? fmt::format("{:x}\r\n{}\r\n", bytes.size(), bytes)
                                    : std::move(bytes);
}

std::string Session::head_of(const Response& response, bool whole) {
  streaming_ = !whole;
  // Without chunks, the end of a stream is the end of the connection.
  if (draining_ || (!whole && !chunked_)) close_after_ = true;
  const BodyEnd end = whole ? BodyEnd::kLength : chunked_ ? BodyEnd::kChunks : BodyEnd::kConnection;
  return response_head(response, end, close_after_, extra_headers_);
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
