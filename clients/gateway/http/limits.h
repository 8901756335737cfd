// What a connection may ask for, and for how long.
//
// Thread safety: values.
#pragma once

#include <chrono>
#include <cstddef>

namespace chimera::gateway {

struct HttpLimits {
  size_t header_bytes = 16 << 10;
  size_t body_bytes = 4 << 20;  // a request of the wire holds no more
  size_t connections = 4096;
  size_t unread_bytes = 256 << 10;  // of an answer, waiting for a slow reader
  std::chrono::seconds header{10};  // from the first byte of a request to the end of its head
  std::chrono::seconds body{60};    // from there to the end of its body
  std::chrono::seconds idle{75};    // between requests
  std::chrono::seconds write{30};   // without a byte of an answer being taken
};

}  // namespace chimera::gateway
