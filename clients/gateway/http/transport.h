// The bytes of one connection, plain or through TLS.
//
// Thread safety: by the thread of the server's loop; so are the callbacks.
#pragma once

#include <cstddef>
#include <functional>
#include <memory>
#include <string>

namespace chimera::gateway {

class Transport {
 public:
  /// `count` 0: the other side has ended, or the connection is broken.
  using Done = std::function<void(size_t count)>;

  virtual ~Transport() = default;
  /// At most one read and one write at a time. The bytes are borrowed until the callback.
  virtual void read_some(char* into, size_t most, Done done) = 0;
  virtual void write_some(const char* from, size_t count, Done done) = 0;
  /// Before the first read.
  virtual void handshake(std::function<void(bool ok)> done) = 0;
  /// Tells the other side that nothing more is sent.
  virtual void end_sending() = 0;
  /// Ends reads and writes; their callbacks come with 0.
  virtual void close() = 0;
  virtual std::string peer() const = 0;
  virtual bool secure() const = 0;
};

}  // namespace chimera::gateway
