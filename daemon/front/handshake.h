// What a peer says first, before libzmq hears it (ZMTP 3.1, ZeroMQ RFC 37).
//
// The greeting is passed on as it comes, as both sides wait for each other's; what is no ZMTP 3, or
// asks for another mechanism than the endpoint's, ends the connection. Of the READY command of a
// NULL handshake the type of the socket alone is passed on: a peer that names itself (the property
// Identity) can take the name that libzmq would give to the next one and so end the process, and
// what it says of itself must not look like what we say of it. Our own properties take the place.
// Of a CURVE handshake nothing after the greeting can be seen.
//
// Thread safety: a value, used by one thread.
#pragma once

#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"

namespace chimera {

enum class Mechanism : uint8_t { kNull, kCurve };

/// Properties that are put into READY; libzmq shows them with every message of the connection.
using ReadyProperties = std::vector<std::pair<std::string, std::string>>;

class Handshake {
 public:
  static constexpr size_t kGreetingBytes = 64;

  Handshake(Mechanism mechanism, ReadyProperties properties)
      : mechanism_(mechanism), properties_(std::move(properties)) {}

  /// Takes the next bytes of the peer and returns those to pass on. invalid_argument when the
  /// connection is to end.
  Result<std::string> feed(std::string_view bytes);
  /// From here on everything is passed on as it is.
  bool done() const { return done_; }
  Mechanism mechanism() const { return mechanism_; }
  /// The peer has said all of its greeting.
  bool greeted() const { return greeting_missing() == 0; }
  /// Bytes of its greeting that are still to come.
  size_t greeting_missing() const { return kGreetingBytes - greeting_.size(); }

 private:
  Status take_greeting(std::string_view* bytes, std::string* out);
  Status take_ready(std::string_view bytes, std::string* out);
  Result<std::string> ready_of(std::string_view body) const;

  Mechanism mechanism_;
  ReadyProperties properties_;
  std::string greeting_, command_;
  bool done_ = false;
};

/// The ERROR command that ends a handshake: the peer's library tells it as a failed
/// authentication. `reason` is a ZAP status code.
std::string error_command(std::string_view reason);

}  // namespace chimera
