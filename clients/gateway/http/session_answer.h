// The Exchange of a session. Internal to session.cc.
//
// Thread safety: by the thread of the server's loop.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <utility>

#include "clients/gateway/http/session.h"

namespace chimera::gateway {

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
    session->send_whole(response, request_.method == "HEAD");
    session->answered();
  }
  void begin(Response head) override {
    if (!session_ || begun_) return;
    begun_ = true;
    session_->send_stream(head);
  }
  void write(std::string bytes) override {
    if (!session_ || bytes.empty()) return;
    const auto session = session_;  // which may be cut off by this
    session->push(session->chunk(std::move(bytes)));
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

}  // namespace chimera::gateway
