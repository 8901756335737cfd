// How long the engine's work takes, counted by bucket: whoever reads the counts from time to time
// may add them up over daemons and take quantiles of any span, which quantiles do not allow.
//
// Thread safety: values.
#pragma once

#include <algorithm>
#include <array>
#include <chrono>
#include <cstdint>

namespace chimera {

/// Counts of durations.
struct Latency {
  /// Upper ends of the buckets, inclusive, in seconds: from a step of a small model to an answer of
  /// minutes, by factors of 2 to 2.5. One more bucket holds what is longer.
  static constexpr std::array kBounds = {0.0005, 0.001, 0.0025, 0.005, 0.01,  0.025,
                                         0.05,   0.1,   0.25,   0.5,   1.0,   2.5,
                                         5.0,    10.0,  25.0,   60.0,  150.0, 300.0};

  std::array<uint64_t, kBounds.size() + 1> counts{};
  double sum = 0.0;  // seconds

  void observe(std::chrono::duration<double> took) {
    const auto bucket = std::lower_bound(kBounds.begin(), kBounds.end(), took.count());
    ++counts[static_cast<size_t>(bucket - kBounds.begin())];
    sum += took.count();
  }
};

struct Latencies {
  Latency queue;        // from arrival to admission
  Latency prefill;      // from admission to the first token, or to the end of what reads
  Latency first_token;  // from arrival to the first token
  Latency inter_token;  // from one token to the next
  Latency step;         // of forward pass and sampling
  Latency request;      // from arrival to a complete answer
};

}  // namespace chimera
