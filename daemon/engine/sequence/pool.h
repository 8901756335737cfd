// Pool: the hidden states of a text become one vector.
//
// Sums are taken in double, in the order of the positions: the same bits however the text was cut
// into passes.
//
// Thread safety: none.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <vector>

namespace chimera {

/// Which of the states count: all of them alike, or that of the last token, which alone has seen
/// the whole text.
enum class Pooling : uint8_t { kMean, kLast };

class Pool {
 public:
  explicit Pool(Pooling pooling) : pooling_(pooling) {}

  /// `states`: the next positions, [n, width], the same width every time. False when one of the
  /// values is not finite; then there is no result.
  bool add(std::span<const float> states, size_t width);
  /// [width]; none before the first state. `normalize`: of length 1, unless all values are 0.
  std::vector<float> result(bool normalize) const;

 private:
  Pooling pooling_;
  std::vector<double> sum_;  // of kLast: the last state
  int64_t count_ = 0;
};

}  // namespace chimera
