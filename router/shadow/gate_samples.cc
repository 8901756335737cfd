#include "router/shadow/gate_samples.h"

#include <algorithm>

namespace chimera {

GateSamples::GateSamples(uint64_t bytes, int64_t hidden)
    : hidden_(static_cast<size_t>(hidden)),
      capacity_(static_cast<size_t>(bytes) / (hidden_ * sizeof(uint16_t) + sizeof(int32_t))),
      layers_(capacity_),
      inputs_(capacity_ * hidden_) {}

void GateSamples::add(std::span<const int32_t> layers, std::span<const uint16_t> inputs) {
  if (capacity_ == 0 || layers.empty() || !mutex_.try_lock()) return;
  size_t filled = filled_.load(std::memory_order_relaxed);
  for (size_t i = 0; i < layers.size(); ++i) {
    const size_t at = filled < capacity_ ? filled++ : draw_.below(capacity_);
    layers_[at] = layers[i];
    std::copy_n(inputs.begin() + static_cast<ptrdiff_t>(i * hidden_), hidden_,
                inputs_.begin() + static_cast<ptrdiff_t>(at * hidden_));
  }
  filled_.store(filled, std::memory_order_relaxed);
  mutex_.unlock();
}

GateSamples::Copy GateSamples::copy() const {
  const MutexLock lock(mutex_);
  const size_t n = filled_.load(std::memory_order_relaxed);
  const auto end = [](const auto& values, size_t count) {
    return values.begin() + static_cast<ptrdiff_t>(count);
  };
  return {{layers_.begin(), end(layers_, n)}, {inputs_.begin(), end(inputs_, n * hidden_)}};
}

}  // namespace chimera
