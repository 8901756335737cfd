#include "experts/residency/evictable_expert.h"

#include <utility>

namespace chimera {

Status EvictableExpert::forward(const float* x, int64_t rows, float* y, ExpertContext& ctx) const {
  const Expert* const expert = now_.load(std::memory_order_acquire);
  if (expert != nullptr) return expert->forward(x, rows, y, ctx);
  return {Code::kUnavailable,
          "its weights are not in memory (expected them there while it is used)"};
}

std::shared_ptr<const Expert> EvictableExpert::exchange(std::shared_ptr<const Expert> content) {
  now_.store(content.get(), std::memory_order_release);
  return std::exchange(content_, std::move(content));
}

}  // namespace chimera
