// The experts of a `library` module, as the routing table holds them.
//
// Thread safety: as Expert.
#pragma once

#include <cstdint>
#include <memory>
#include <utility>

#include "experts/library/backend.h"

namespace chimera {

class LibraryExpert final : public Expert {
 public:
  LibraryExpert(std::shared_ptr<LibraryBackend> backend, int64_t layer, int64_t index,
                FailurePolicy policy)
      : backend_(std::move(backend)), layer_(layer), index_(index), policy_(policy) {}

  Status forward(const float* x, int64_t rows, float* y, ExpertContext& ctx) const override {
    if (rows == 0) return {};
    return backend_->forward(layer_, index_, x, rows, y, ctx);
  }
  ExpertExecutor& executor() const override { return backend_->executor(); }
  /// The memory is the backend's, counted once per module.
  uint64_t resident_bytes() const override { return 0; }
  FailurePolicy on_failure() const override { return policy_; }

  int64_t layer() const { return layer_; }
  /// Among those that the library has in the layer.
  int64_t index() const { return index_; }

 private:
  const std::shared_ptr<LibraryBackend> backend_;
  const int64_t layer_, index_;
  const FailurePolicy policy_;
};

}  // namespace chimera
