// One connection of a client: reads requests one after another, writes their answers, and enforces
// the limits.
//
// While a request is answered the session goes on reading, so that it notices a client that leaves;
// what a pipelining client sends meanwhile waits, up to a bound.
//
// Thread safety: by the thread of the server's loop.
#pragma once

#include <chrono>
#include <deque>
#include <memory>
#include <optional>
#include <string>

#include "clients/gateway/http/exchange.h"
#include "clients/gateway/http/limits.h"
#include "clients/gateway/http/parser.h"
#include "clients/gateway/http/transport.h"

namespace chimera::gateway {

class Session : public std::enable_shared_from_this<Session> {
 public:
  using Clock = std::chrono::steady_clock;

  /// `limits` and `handlers` outlive the session.
  Session(std::unique_ptr<Transport> transport, const HttpLimits& limits,
          const HttpHandlers& handlers);

  void start();
  /// Answers 503 without reading anything.
  void turn_away();
  /// Closes now when no request is being answered, else after the answer.
  void drain();
  /// Closes now.
  void abort();
  /// Looks at the deadlines.
  void tick(Clock::time_point now);
  bool closed() const { return stage_ == Stage::kClosed; }

 private:
  class Answer;
  enum class Stage : uint8_t { kHandshake, kIdle, kHead, kBody, kAnswering, kLingering, kClosed };

  void enter(Stage stage);
  void read();
  void on_read(size_t count);
  void advance();
  void on_head();
  void dispatch();
  void refuse(unsigned status, std::string_view problem);
  void send_whole(const Response& response, bool head_alone);
  void send_stream(Response& head);
  std::string head_of(const Response& response, bool whole);
  std::string chunk(std::string bytes) const;
  void push(std::string bytes);
  void write();
  void on_written(size_t count);
  void answered();
  void client_gone();

  const std::unique_ptr<Transport> transport_;
  const HttpLimits& limits_;
  const HttpHandlers& handlers_;
  Stage stage_ = Stage::kHandshake;
  Clock::time_point deadline_;
  std::optional<Clock::time_point> write_deadline_;
  bool draining_ = false, reading_ = false, writing_ = false, read_ended_ = false;
  bool complete_ = false;     // the answer is, though perhaps not yet written
  bool close_after_ = false;  // the answer
  bool chunked_ = false;
  bool streaming_ = false;  // the answer has no known end

  RequestParser parser_;
  std::string read_buffer_;  // only while reading
  std::string input_;        // read and not yet parsed
  Headers extra_headers_;
  std::weak_ptr<Answer> answer_;
  std::string output_;  // being written from output_at_
  size_t output_at_ = 0;
  std::string queued_;  // behind it
};

}  // namespace chimera::gateway
