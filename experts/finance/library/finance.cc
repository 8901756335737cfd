// The finance expert as a library: its weights compiled in, packed to int8 (packed.h), with kernels
// of its own (kernel.h). One expert in each of six layers; the gate rows are in gate.safetensors.
#include <algorithm>
#include <string>

#include "chimera/draft/residency.h"
#include "chimera/expert.hpp"
#include "chimera/services/cancel.h"
#include "chimera/services/metrics.h"
#include "chimera/services/parallel.h"
#include "experts/finance/library/kernel.h"
#include "experts/finance/library/packed.h"

#define FINANCE_ID "org.chimera.finance"
CHIMERA_EXPERT_NOTE(FINANCE_ID, FINANCE_VERSION, FINANCE_BUILD);

// The packed weights, as pack_main wrote them: FinanceLayer[6].
__asm__(
    ".pushsection .rodata\n"
    ".balign 64\n"
    ".hidden finance_layers\n"
    ".globl finance_layers\n"
    "finance_layers:\n"
    ".incbin \"" FINANCE_WEIGHTS
    "\"\n"
    ".hidden finance_layers_end\n"
    ".globl finance_layers_end\n"
    "finance_layers_end:\n"
    ".popsection\n");
extern "C" __attribute__((visibility("hidden"))) const FinanceLayer finance_layers[kFinanceLayers];
extern "C" __attribute__((visibility("hidden"))) const FinanceLayer finance_layers_end[1];

namespace finance {
namespace {

using chimera::plugin::Expert;
using chimera::plugin::Failure;
using chimera::plugin::Host;

constexpr uint32_t kMaxRows = 64;
// Tiles per hand-over to a worker: 128 outputs over 256 inputs of one row are 4 us on one core,
// several times what a hand-over costs.
constexpr int64_t kTilesPerTask = 16;
constexpr int64_t kUpTiles = kFinanceWidth / kFinanceTile;
constexpr int64_t kDownTiles = kFinanceHidden / kFinanceTile;

constexpr chimera_expert_layer kLayers[kFinanceLayers] = {{0, 1}, {1, 1}, {2, 1},
                                                          {3, 1}, {4, 1}, {5, 1}};
constexpr chimera_text kDomains[] = {CHIMERA_TEXT("finance")};
constexpr const char* kOptional[] = {CHIMERA_PARALLEL_ID, CHIMERA_CANCEL_ID, CHIMERA_METRICS_ID};

Packed packed(const FinanceUp& m) { return {m.scale, &m.q[0][0][0], kFinanceHidden}; }
Packed packed(const FinanceDown& m) { return {m.scale, &m.q[0][0][0], kFinanceWidth}; }

/// The rows of one forward call on their way through the expert.
struct Job {
  const FinanceLayer* layer;
  Multiply multiply;
  const float* x;
  float *h, *u, *y;  // h, u: [rows, 512]
  int64_t x_stride, y_stride, rows;

  void up(int64_t begin, int64_t end) const {
    multiply(packed(layer->gate), begin, end, x, x_stride, rows, h, kFinanceWidth);
    multiply(packed(layer->up), begin, end, x, x_stride, rows, u, kFinanceWidth);
    for (int64_t r = 0; r < rows; ++r) {
      const int64_t at = r * kFinanceWidth + begin * kFinanceTile;
      swiglu(h + at, u + at, (end - begin) * kFinanceTile);
    }
  }
  void down(int64_t begin, int64_t end) const {
    multiply(packed(layer->down), begin, end, h, kFinanceWidth, rows, y, y_stride);
  }
};

class Finance final : public Expert {
 public:
  using Expert::Expert;
  static const chimera_expert_descriptor descriptor;

  void prepare(std::string_view config) override {
    if (!config.empty()) {
      throw Failure(CHIMERA_INVALID_ARGUMENT, "library.config: found " + std::string(config) +
                                                  " (expected nothing: there is nothing to set)");
    }
    if (reinterpret_cast<const char*>(finance_layers_end) -
            reinterpret_cast<const char*>(finance_layers) !=
        static_cast<ptrdiff_t>(sizeof(FinanceLayer) * kFinanceLayers)) {
      throw Failure(CHIMERA_DATA_CORRUPT,
                    "the weights compiled in have another size than the code");
    }
    parallel_ = host().service<chimera_host_parallel>(CHIMERA_PARALLEL_ID);
    cancel_ = host().service<chimera_host_cancel>(CHIMERA_CANCEL_ID);
    metrics_ = host().service<chimera_host_metrics>(CHIMERA_METRICS_ID);
    if (metrics_ != nullptr) rows_ = metrics_->counter(host().get(), CHIMERA_TEXT("rows"));
  }

  void activate(const chimera_expert_limits& limits) override {
    if (limits.max_rows > kMaxRows) throw Failure(CHIMERA_INVALID_ARGUMENT, "limits.max_rows");
    multiply_ = best_multiply();
  }

  int32_t forward(const chimera_expert_batch& batch) override {
    if (batch.n_rows > kMaxRows || batch.layer >= kFinanceLayers || batch.expert != 0) {
      return CHIMERA_INVALID_ARGUMENT;
    }
    if (batch.n_rows == 0) return CHIMERA_OK;
    // Worker 0's scratch holds the inner activations of all workers.
    float* const h = static_cast<float*>(chimera::plugin::scratch(batch, 0));
    const Job job{&finance_layers[batch.layer],
                  multiply_,
                  chimera::plugin::input_row(batch, 0),
                  h,
                  h + static_cast<int64_t>(kMaxRows) * kFinanceWidth,
                  chimera::plugin::output_row(batch, 0),
                  static_cast<int64_t>(batch.x_stride / sizeof(float)),
                  static_cast<int64_t>(batch.y_stride / sizeof(float)),
                  static_cast<int64_t>(batch.n_rows)};
    run<&Job::up>(job, kUpTiles, batch.worker_count);
    if (cancel_ != nullptr) {
      const int32_t status = cancel_->check(host().get(), &batch);
      if (status != CHIMERA_OK) return status;
    }
    run<&Job::down>(job, kDownTiles, batch.worker_count);
    if (metrics_ != nullptr) metrics_->add(host().get(), rows_, batch.n_rows);
    return CHIMERA_OK;
  }

  void deactivate() noexcept override {}

  const void* get_extension(const char* id) noexcept override {
    static constexpr chimera_expert_residency kResidency{
        sizeof(chimera_expert_residency), 0, [](chimera_expert*) -> uint64_t { return 0; }};
    // The weights are part of the mapped image, which the host counts itself.
    return std::strcmp(id, CHIMERA_RESIDENCY_DRAFT_ID) == 0 ? &kResidency : nullptr;
  }

 private:
  template <void (Job::*Part)(int64_t, int64_t) const>
  void run(const Job& job, int64_t tiles, uint32_t workers) const {
    const auto body = [](void* context, uint32_t index, uint32_t) {
      const Job& j = *static_cast<const Job*>(context);
      const int64_t begin = index * kTilesPerTask;
      (j.*Part)(begin, begin + kTilesPerTask);
    };
    const auto tasks = static_cast<uint32_t>(tiles / kTilesPerTask);
    auto* context = const_cast<Job*>(&job);
    if (workers > 1 && parallel_ != nullptr &&
        parallel_->run(host().get(), tasks, body, context) == CHIMERA_OK) {
      return;
    }
    (job.*Part)(0, tiles);
  }

  const chimera_host_parallel* parallel_ = nullptr;
  const chimera_host_cancel* cancel_ = nullptr;
  const chimera_host_metrics* metrics_ = nullptr;
  uint32_t rows_ = 0;
  Multiply multiply_ = nullptr;
};

static_assert(kUpTiles % kTilesPerTask == 0 && kDownTiles % kTilesPerTask == 0);

const chimera_expert_descriptor Finance::descriptor = {
    sizeof(chimera_expert_descriptor),
    0,
    FINANCE_ID,
    CHIMERA_TEXT(FINANCE_VERSION),
    CHIMERA_TEXT("Chimera"),
    CHIMERA_TEXT("CC-BY-SA-4.0"),
    CHIMERA_TEXT("Monetary policy, banking and economics; int8 weights compiled in"),
    kDomains,
    1,
    CHIMERA_TEXT(FINANCE_FINGERPRINT),
    kFinanceHidden,
    kFinanceWidth,
    kLayers,
    kFinanceLayers,
    CHIMERA_DTYPE_F32,
    CHIMERA_DTYPE_F32,
    kMaxRows,
    0,
    CHIMERA_CONCURRENCY_REENTRANT,
    CHIMERA_DETERMINISM_BITWISE,
    2 * sizeof(float) * kMaxRows* kFinanceWidth,
    0,
    nullptr,
    0,
    kOptional,
    3,
    25'000,  // measured: one row on one core
    0};

}  // namespace
}  // namespace finance

CHIMERA_EXPERT_LIBRARY(CHIMERA_ENTRY_UNLOAD_CLEAN, finance::Finance);
