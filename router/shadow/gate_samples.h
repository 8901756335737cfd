// Gate inputs of recent traffic, from which `plan` predicts the shares of a composition that is not
// in use (shadow_shares.h).
//
// A sample is what the gate of one layer saw of one token, as bf16. Nothing says whose it was,
// which token, or what came before it, and of a token there is one layer alone. Until their memory
// is full every token gives a sample; from then on one token in kEvery takes the place of another
// sample, drawn at random, so that of older traffic there is less and less.
//
// Thread safety: add() by one thread, which never waits: what comes while a copy is made is lost.
// The rest from any thread.
#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

#include "base/threads/mutex.h"

namespace chimera {

/// Draws that look random (Knuth's MMIX linear congruential generator, upper half).
class Draw {
 public:
  /// In [0, n); `n` > 0.
  size_t below(size_t n) {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return static_cast<size_t>((state_ >> 32) % n);
  }

 private:
  uint64_t state_ = 1;
};

class GateSamples {
 public:
  /// With every sample in a place of its own, the traffic of the last `size * kEvery` tokens would
  /// be there; drawn at random, that is their mean age.
  static constexpr size_t kEvery = 16;

  struct Copy {
    std::vector<int32_t> layers;   // [n]
    std::vector<uint16_t> inputs;  // [n, hidden], bf16
  };

  /// As many samples as `bytes` hold, whose memory is taken now. REQUIRES: hidden > 0.
  GateSamples(uint64_t bytes, int64_t hidden);

  size_t capacity() const { return capacity_; }
  int64_t hidden() const { return static_cast<int64_t>(hidden_); }
  /// Whether a further sample takes the place of another one.
  bool full() const { return filled_.load(std::memory_order_relaxed) == capacity_; }

  /// `inputs`: [layers.size(), hidden].
  void add(std::span<const int32_t> layers, std::span<const uint16_t> inputs) EXCLUDES(mutex_);
  Copy copy() const EXCLUDES(mutex_);

 private:
  const size_t hidden_;
  const size_t capacity_;
  std::atomic<size_t> filled_{0};
  Draw draw_;  // of the thread that adds
  mutable Mutex mutex_;
  std::vector<int32_t> layers_ GUARDED_BY(mutex_);
  std::vector<uint16_t> inputs_ GUARDED_BY(mutex_);
};

}  // namespace chimera
