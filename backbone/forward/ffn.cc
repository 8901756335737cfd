// Feed-forwards that every row passes: those of layers without a router, and shared experts.
#include <cmath>

#include "backbone/forward/pass.h"

namespace chimera {

void ForwardPass::feed_forward(int64_t layer, const FfnWeights& w, FfnRoles roles, const float* x,
                               float* y) {
  const int64_t width = w.gate.rows;
  float* gate = sized(ws_.ffn_gate, width);
  float* up = sized(ws_.ffn_up, width);
  multiply(layer, {{roles.gate, x, &w.gate, gate}, {roles.up, x, &w.up, up}});
  for_rows([&](int64_t r) { kernels_.swiglu(gate + r * width, up + r * width, width); });
  multiply(layer, {{roles.down, gate, &w.down, y}});
}

void ForwardPass::add_shared(int64_t layer, const LayerWeights& w, const float* x) {
  float* shared = sized(ws_.shared, c_.hidden_size);
  feed_forward(layer, *w.shared, kSharedRoles, x, shared);
  float* share = sized(ws_.share, 1);
  if (w.shared_gate) {
    multiply(layer, {{TensorRole::kSharedScore, x, &*w.shared_gate, share}});
  }
  for_rows([&](int64_t r) {
    const float weight = w.shared_gate ? 1.0f / (1.0f + std::exp(-share[r])) : 1.0f;
    kernels_.axpy(weight, shared + r * c_.hidden_size, ws_.ffn.data() + r * c_.hidden_size,
                  c_.hidden_size);
  });
}

}  // namespace chimera
