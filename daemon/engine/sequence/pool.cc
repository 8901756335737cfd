#include "daemon/engine/sequence/pool.h"

#include <algorithm>
#include <cmath>

namespace chimera {

bool Pool::add(std::span<const float> states, size_t width) {
  sum_.resize(width, 0.0);
  for (size_t at = 0; at < states.size(); at += width) {
    const auto row = states.subspan(at, width);
    if (!std::all_of(row.begin(), row.end(), [](float v) { return std::isfinite(v); })) {
      return false;
    }
    ++count_;
    for (size_t i = 0; i < width; ++i) {
      const double value = row[i];
      sum_[i] = pooling_ == Pooling::kMean ? sum_[i] + value : value;
    }
  }
  return true;
}

std::vector<float> Pool::result(bool normalize) const {
  double scale = pooling_ == Pooling::kMean && count_ > 0 ? 1.0 / static_cast<double>(count_) : 1.0;
  if (normalize) {
    double squares = 0.0;
    for (const double value : sum_) squares += value * value;
    if (squares > 0.0) scale = 1.0 / std::sqrt(squares);
  }
  std::vector<float> out(sum_.size());
  std::transform(sum_.begin(), sum_.end(), out.begin(),
                 // Adding 0 makes -0 a 0, which every reader of JSON takes for a number.
                 [scale](double value) { return static_cast<float>(value * scale) + 0.0f; });
  return out;
}

}  // namespace chimera
