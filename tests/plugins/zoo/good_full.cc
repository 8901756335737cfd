// Keeps the contract, in C++ by way of the wrapper: workers, host kernels, cancellation, logging.
#include <cstring>
#include <vector>

#include "chimera/expert.hpp"
#include "chimera/services.h"

CHIMERA_EXPERT_NOTE("org.chimera.zoo.full", "2.1.0", "zoo");

namespace {

namespace plugin = chimera::plugin;

constexpr uint32_t kModel = 24, kInner = 40;
const chimera_expert_layer kLayers[] = {{1, 3}};
const char* const kRequired[] = {CHIMERA_MATMUL_ID, CHIMERA_PARALLEL_ID, CHIMERA_MEMORY_ID};
const char* const kOptional[] = {CHIMERA_LOG_ID, CHIMERA_CANCEL_ID, CHIMERA_METRICS_ID,
                                 CHIMERA_ERROR_ID};

class Full final : public plugin::Expert {
 public:
  using Expert::Expert;
  static const chimera_expert_descriptor descriptor;

  void prepare(std::string_view config) override {
    if (!config.empty() && config.substr(0, 5) != "scale") {
      throw plugin::Failure(CHIMERA_INVALID_ARGUMENT, "config: expected scale or nothing");
    }
    matmul_ = &host().require<chimera_host_matmul>(CHIMERA_MATMUL_ID);
    parallel_ = &host().require<chimera_host_parallel>(CHIMERA_PARALLEL_ID);
    memory_ = &host().require<chimera_host_memory>(CHIMERA_MEMORY_ID);
    cancel_ = host().service<chimera_host_cancel>(CHIMERA_CANCEL_ID);
    const auto* log = host().service<chimera_host_log>(CHIMERA_LOG_ID);
    if (log != nullptr) log->write(host().get(), CHIMERA_LOG_DEBUG, plugin::text("prepared"));
  }

  void activate(const chimera_expert_limits& limits) override {
    max_rows_ = limits.max_rows;
    try {
      for (uint32_t e = 0; e < kLayers[0].expert_count; ++e) {
        pack(kInner, kModel, e, &up_[e]);
        pack(kModel, kInner, e + 7, &down_[e]);
      }
    } catch (...) {
      deactivate();
      throw;
    }
  }

  int32_t forward(const chimera_expert_batch& b) override {
    if (b.n_rows > max_rows_ || b.layer != 1 || b.expert >= kLayers[0].expert_count) {
      return CHIMERA_INVALID_ARGUMENT;
    }
    struct Work {
      const Full* self;
      const chimera_expert_batch* batch;
    } work{this, &b};
    if (cancel_ != nullptr) {
      if (const int32_t status = cancel_->check(host().get(), &b); status != CHIMERA_OK)
        return status;
    }
    return parallel_->run(
        host().get(), b.n_rows,
        [](void* context, uint32_t row, uint32_t worker) {
          const auto* w = static_cast<const Work*>(context);
          w->self->row(*w->batch, row, worker);
        },
        &work);
  }

  void deactivate() noexcept override {
    for (auto* all : {up_, down_}) {
      for (uint32_t e = 0; e < 3; ++e) {
        if (all[e] != nullptr) matmul_->release(host().get(), all[e]);
        all[e] = nullptr;
      }
    }
  }

 private:
  void pack(uint64_t rows, uint64_t cols, uint32_t seed, chimera_packed_matrix** out) {
    std::vector<float> w(rows * cols);
    for (size_t i = 0; i < w.size(); ++i) {
      w[i] = 0.01f * static_cast<float>((i * 37 + seed * 11) % 41) - 0.2f;
    }
    const chimera_matrix_source source = {sizeof(source), CHIMERA_DTYPE_F32, rows,   cols,
                                          cols * 4,       w.data(),          nullptr};
    const int32_t status = matmul_->pack(host().get(), &source, out);
    if (status != CHIMERA_OK) throw plugin::Failure(status, "weights: cannot be packed");
  }

  void row(const chimera_expert_batch& b, uint32_t r, uint32_t worker) const {
    auto* hidden = static_cast<float*>(plugin::scratch(b, worker));
    matmul_->multiply(host().get(), up_[b.expert], plugin::input_row(b, r), kModel * 4, 1, 0,
                      kInner, hidden, kInner * 4);
    for (uint32_t i = 0; i < kInner; ++i) hidden[i] = hidden[i] > 0 ? hidden[i] : 0;
    matmul_->multiply(host().get(), down_[b.expert], hidden, kInner * 4, 1, 0, kModel,
                      plugin::output_row(b, r), kModel * 4);
  }

  const chimera_host_matmul* matmul_ = nullptr;
  const chimera_host_parallel* parallel_ = nullptr;
  const chimera_host_memory* memory_ = nullptr;
  const chimera_host_cancel* cancel_ = nullptr;
  chimera_packed_matrix *up_[3] = {}, *down_[3] = {};
  uint32_t max_rows_ = 0;
};

const chimera_expert_descriptor Full::descriptor = {sizeof(chimera_expert_descriptor),
                                                    0,
                                                    "org.chimera.zoo.full",
                                                    CHIMERA_TEXT("2.1.0"),
                                                    CHIMERA_TEXT("Chimera"),
                                                    CHIMERA_TEXT("Apache-2.0"),
                                                    CHIMERA_TEXT("test material"),
                                                    nullptr,
                                                    0,
                                                    {nullptr, 0},
                                                    kModel,
                                                    kInner,
                                                    kLayers,
                                                    1,
                                                    CHIMERA_DTYPE_F32,
                                                    CHIMERA_DTYPE_F32,
                                                    64,
                                                    0,
                                                    CHIMERA_CONCURRENCY_REENTRANT,
                                                    CHIMERA_DETERMINISM_TOLERANCE,
                                                    kInner * 4,
                                                    0,
                                                    kRequired,
                                                    3,
                                                    kOptional,
                                                    4,
                                                    0,
                                                    0};

}  // namespace

CHIMERA_EXPERT_LIBRARY(CHIMERA_ENTRY_UNLOAD_CLEAN, Full);
