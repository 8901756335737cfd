// Bytes of a connection -> requests. Boost.Beast's parser does the work; it sees no sockets.
//
// Thread safety: none.
#pragma once

#include <memory>
#include <string>

#include "clients/gateway/http/limits.h"
#include "clients/gateway/http/message.h"

namespace chimera::gateway {

class RequestParser {
 public:
  explicit RequestParser(const HttpLimits& limits);
  ~RequestParser();
  RequestParser(const RequestParser&) = delete;
  RequestParser& operator=(const RequestParser&) = delete;

  enum class State : uint8_t { kHead, kBody, kDone, kFailed };

  /// Takes what belongs to the request off the front of `input`; stops at the end of the head and
  /// at the end of the request.
  State feed(std::string& input);
  State state() const;

  /// From the end of the head on: the request, whose body is there when done. Valid until reset().
  Request& request();
  bool keep_alive() const;
  bool chunked_answers() const;  // HTTP/1.1
  bool expects_continue() const;

  /// Of a failed request: 400, 413 or 431, and what is wrong with it.
  unsigned failed_status() const;
  std::string problem() const;

  /// Ready for the next request.
  void reset();

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

}  // namespace chimera::gateway
