// An expert whose weights may leave memory and come back, while whoever refers to it stays as it
// is.
//
// Thread safety: as Expert. Its weights go and come under the mutex of its ExpertResidency, and
// never while an ExpertLease on it lives that is ready: who runs it holds one.
#pragma once

#include <atomic>
#include <memory>

#include "experts/expert.h"

namespace chimera {

class EvictableExpert final : public Expert {
 public:
  /// `content` is what it is while it is in memory; not null.
  explicit EvictableExpert(std::shared_ptr<const Expert> content)
      : bytes_(content->resident_bytes()), content_(std::move(content)), now_(content_.get()) {}

  /// unavailable while its weights are not in memory.
  Status forward(const float* x, int64_t rows, float* y, ExpertContext& ctx) const override;
  /// Itself while its weights are not in memory, so that a call says so.
  const Expert& current() const override {
    const Expert* const expert = now_.load(std::memory_order_acquire);
    return expert == nullptr ? *this : *expert;
  }
  /// 0 while its weights are not in memory.
  uint64_t resident_bytes() const override { return resident() ? bytes_ : 0; }

  bool resident() const { return now_.load(std::memory_order_acquire) != nullptr; }
  /// Of its weights, when they are in memory.
  uint64_t bytes() const { return bytes_; }

 private:
  friend class ExpertResidency;
  /// Null: they leave memory with what is returned.
  std::shared_ptr<const Expert> exchange(std::shared_ptr<const Expert> content);

  const uint64_t bytes_;
  std::shared_ptr<const Expert> content_;  // by the mutex of the residency
  std::atomic<const Expert*> now_;         // the same, for who runs it
};

}  // namespace chimera
