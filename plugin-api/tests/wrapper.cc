// The C++ wrapper in use, for the header matrix.
#include "chimera/expert.hpp"

CHIMERA_EXPERT_NOTE("org.chimera.wrapper", "1.0.0", "");

namespace {

const chimera_expert_layer kLayers[] = {{0, 1}};

class Doubler final : public chimera::plugin::Expert {
 public:
  using Expert::Expert;
  static const chimera_expert_descriptor descriptor;
  void activate(const chimera_expert_limits& limits) override {
    if (limits.max_rows == 0) throw chimera::plugin::Failure(CHIMERA_INVALID_ARGUMENT, "no rows");
  }
  int32_t forward(const chimera_expert_batch& batch) override {
    for (uint32_t r = 0; r < batch.n_rows; ++r) {
      const float* x = chimera::plugin::input_row(batch, r);
      float* y = chimera::plugin::output_row(batch, r);
      for (uint32_t i = 0; i < descriptor.d_model; ++i) y[i] = 2.0f * x[i];
    }
    return CHIMERA_OK;
  }
  void deactivate() noexcept override {}
};

const chimera_expert_descriptor Doubler::descriptor = {sizeof(chimera_expert_descriptor),
                                                       0,
                                                       "org.chimera.wrapper",
                                                       CHIMERA_TEXT("1.0.0"),
                                                       CHIMERA_TEXT("Chimera"),
                                                       CHIMERA_TEXT("Apache-2.0"),
                                                       CHIMERA_TEXT("Doubles its input"),
                                                       nullptr,
                                                       0,
                                                       {nullptr, 0},
                                                       16,
                                                       0,
                                                       kLayers,
                                                       1,
                                                       CHIMERA_DTYPE_F32,
                                                       CHIMERA_DTYPE_F32,
                                                       64,
                                                       0,
                                                       CHIMERA_CONCURRENCY_REENTRANT,
                                                       CHIMERA_DETERMINISM_BITWISE,
                                                       0,
                                                       0,
                                                       nullptr,
                                                       0,
                                                       nullptr,
                                                       0,
                                                       0,
                                                       0};

}  // namespace

CHIMERA_EXPERT_LIBRARY(CHIMERA_ENTRY_UNLOAD_CLEAN, Doubler);
