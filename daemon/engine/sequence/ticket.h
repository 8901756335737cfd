// Ticket: the right and the duty to end one request exactly once.
//
// done() and fail() consume the sink, so a second terminal event cannot be sent; a ticket that is
// dropped without either answers `internal`, so a forgotten request shows instead of hanging.
//
// Thread safety: none; a ticket has one owner.
#pragma once

#include <memory>
#include <utility>

#include "daemon/engine/sequence/request.h"

namespace chimera {

class Ticket {
 public:
  Ticket() = default;
  explicit Ticket(std::shared_ptr<EventSink> sink) : sink_(std::move(sink)) {}
  Ticket(Ticket&& other) noexcept : sink_(std::move(other.sink_)) {}
  Ticket& operator=(Ticket&& other) noexcept {
    if (this != &other) {
      expire();
      sink_ = std::move(other.sink_);
    }
    return *this;
  }
  ~Ticket() { expire(); }

  void token(TokenEvent event) {
    if (sink_) sink_->on_token(std::move(event));
  }
  void done(DoneEvent event) {
    if (const auto sink = std::exchange(sink_, nullptr)) sink->on_done(std::move(event));
  }
  void fail(Status status) {
    if (const auto sink = std::exchange(sink_, nullptr)) sink->on_error(std::move(status));
  }

 private:
  void expire() {
    if (sink_)
      fail({Code::kInternal, "the engine dropped this request without an answer",
            "report this together with the daemon's log"});
  }

  std::shared_ptr<EventSink> sink_;
};

}  // namespace chimera
