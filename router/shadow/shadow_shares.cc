#include "router/shadow/shadow_shares.h"

#include <utility>
#include <vector>

#include "compute/kernels/kernels.h"
#include "router/moe.h"

namespace chimera {
namespace {

/// The gate of one layer over its samples.
class LayerScores {
 public:
  LayerScores(const RouteView& view, size_t layer)
      : view_(view),
        table_(view.table->layers()[layer]),
        active_(view.active->layers[layer]),
        layer_(layer),
        mass_(view.table->modules().size(), 0.0),
        logits_(active_.candidates.size()),
        choices_(static_cast<size_t>(view.top_k)) {}

  /// `x`: [hidden]. What no gate may be asked of (values that are not finite) does not count.
  void add(const std::vector<float>& x) {
    if (active_.candidates.empty()) return;
    const auto hidden = static_cast<int64_t>(x.size());
    const auto stride = static_cast<int64_t>(logits_.size());
    for (const GateBlock& block : active_.blocks) {
      best_kernels().matmul(x.data(), 1, hidden, block.gate, 0, block.gate.rows,
                            logits_.data() + block.first, stride);
    }
    const int32_t n = choose_experts(view_, layer_, logits_, choices_, nullptr);
    if (n <= 0) return;
    for (int32_t i = 0; i < n; ++i) {
      const GateChoice& choice = choices_[static_cast<size_t>(i)];
      mass_[static_cast<size_t>(table_.owner[static_cast<size_t>(choice.expert)])] +=
          static_cast<double>(choice.mass);
    }
    ++tokens_;
  }

  double tokens() const { return tokens_; }
  const std::vector<double>& mass() const { return mass_; }

 private:
  const RouteView& view_;
  const LayerTable& table_;
  const ActiveLayer& active_;
  const size_t layer_;
  std::vector<double> mass_;  // [modules]
  std::vector<float> logits_;
  std::vector<GateChoice> choices_;
  double tokens_ = 0;
};

}  // namespace

Result<std::map<std::string, double>> shadow_shares(
    const std::shared_ptr<const RoutingTable>& table, const GateSamples::Copy& samples) {
  const auto view = make_route_view(table, table->layout()->unnamed(), {});
  if (!view.ok()) return view.status();
  std::vector<LayerScores> layers;
  for (size_t layer = 0; layer < table->layers().size(); ++layer)
    layers.emplace_back(**view, layer);
  const size_t n = samples.layers.size();
  std::vector<float> x(n == 0 ? 0 : samples.inputs.size() / n);
  for (size_t i = 0; i < n; ++i) {
    const uint16_t* from = samples.inputs.data() + i * x.size();
    for (size_t h = 0; h < x.size(); ++h) x[h] = bf16_to_f32(from[h]);
    layers[static_cast<size_t>(samples.layers[i])].add(x);
  }
  std::vector<double> mean(table->modules().size(), 0.0);
  double seen = 0;
  for (const LayerScores& layer : layers) {
    if (layer.tokens() == 0) continue;
    ++seen;
    for (size_t m = 0; m < mean.size(); ++m) mean[m] += layer.mass()[m] / layer.tokens();
  }
  std::map<std::string, double> shares;
  if (seen == 0) return shares;
  for (size_t m = 0; m < mean.size(); ++m) {
    const Module& module = *table->modules()[m];
    if (!module.is_adapter()) shares[module.name()] = mean[m] / seen;
  }
  return shares;
}

}  // namespace chimera
