// Who counts what runs do.
//
// Thread safety: by the thread of the server's loop.
#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace chimera::gateway {

/// What one choice took, as the daemon says; seconds.
struct ChoiceTimes {
  double queue = 0.0, prefill = 0.0, decode = 0.0;
  int64_t tokens = 0;
};

struct RunEnd {
  std::string outcome;  // "ok", a code of chimera/1, or "client_gone"
  double seconds = 0.0;
  int64_t input_tokens = 0, output_tokens = 0, cached_tokens = 0;
  std::vector<std::pair<std::string, double>> shares{};  // of the gate's mass, by module
};

class RunWatch {
 public:
  virtual ~RunWatch() = default;
  /// Seconds from the request to the first token of a choice.
  virtual void first_token(double seconds) = 0;
  virtual void choice(const ChoiceTimes& times) = 0;
  virtual void ended(const RunEnd& end) = 0;
};

}  // namespace chimera::gateway
