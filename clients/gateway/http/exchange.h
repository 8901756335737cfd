// One request on its way to its answer, as the code sees it that answers.
//
// Either respond() once, or begin(), write() as often as there is something, finish(). After
// on_gone was called (the client closed the connection, reads too slowly, or the program ends) all
// of them do nothing.
//
// Thread safety: by the thread of the server's loop.
#pragma once

#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "clients/gateway/http/message.h"

namespace chimera::gateway {

class Exchange {
 public:
  virtual ~Exchange() = default;

  virtual const Request& request() const = 0;
  /// The whole answer.
  virtual void respond(Response response) = 0;
  /// Status, headers and the first bytes of an answer whose end is not known.
  virtual void begin(Response head) = 0;
  virtual void write(std::string bytes) = 0;
  virtual void finish() = 0;
  /// Called once, when the client is gone before the answer was complete.
  virtual void on_gone(std::function<void()> told) = 0;
};

using Handler = std::function<void(std::shared_ptr<Exchange>)>;

/// What is decided by the head of a request, before its body is read.
struct Admission {
  std::optional<Response> refusal;
  Headers headers;  // of the answer, whatever it is
};
using Admit = std::function<Admission(const Request& head)>;
/// The answer to what is no request that could be admitted: 400, 408, 413, 431 and 503, in the
/// shape of the API that its path (empty when unreadable) belongs to.
using Refuse =
    std::function<Response(unsigned status, std::string_view path, std::string_view problem)>;

struct HttpHandlers {
  Admit admit;
  Handler handle;
  Refuse refuse;
};

}  // namespace chimera::gateway
