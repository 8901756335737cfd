// A mixture of experts of the tests' own: double precision, plain loops, every gate and expert kind
// and every layout on disk, written from model-families.md. So the backbone is tested with nothing
// of the router's or the experts' code taking part.
//
// Thread safety: none; by the thread of its test.
#pragma once

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "backbone/backbone.h"

namespace chimera::testing {

using Doubles = std::vector<double>;

/// y = W x for W [n, x.size()] row-major.
inline Doubles product(const Doubles& w, const Doubles& x) {
  Doubles y(w.size() / x.size());
  for (size_t n = 0; n < y.size(); ++n)
    y[n] =
        std::inner_product(x.begin(), x.end(), w.begin() + static_cast<int64_t>(n * x.size()), 0.0);
  return y;
}

inline double sigmoid(double x) { return 1.0 / (1.0 + std::exp(-x)); }

/// Tensors as doubles, dequantised.
class SlowReader {
 public:
  explicit SlowReader(const Checkpoint& checkpoint) : checkpoint_(checkpoint) {}

  bool has(const std::string& name) const { return checkpoint_.find(name) != nullptr; }

  Doubles values(const std::string& name) const {
    const TensorView* t = checkpoint_.find(name);
    if (t == nullptr) {
      ADD_FAILURE() << name << " is missing";
      return {};
    }
    if (t->dtype == DType::kF8E4M3) return fp8(*t, name);
    TensorView flat = *t;
    flat.shape = {t->elements()};
    const Result<std::vector<float>> v = to_f32(flat, t->elements());
    EXPECT_TRUE(v.ok()) << v.status().to_string();
    return v.ok() ? Doubles(v->begin(), v->end()) : Doubles();
  }

  /// `name`_blocks and `name`_scales as [E, out, in] (model-families section 9).
  Doubles mxfp4(const std::string& name) const {
    constexpr double kTable[] = {0, .5, 1, 1.5, 2, 3, 4, 6};
    const TensorView& blocks = *checkpoint_.find(name + "_blocks");
    const TensorView& scales = *checkpoint_.find(name + "_scales");
    Doubles out;
    for (size_t i = 0; i < blocks.bytes.size(); ++i)
      for (int half = 0; half < 2; ++half) {
        const unsigned code = (std::to_integer<unsigned>(blocks.bytes[i]) >> (4 * half)) & 15u;
        const int scale = std::to_integer<int>(scales.bytes[i / 16]) - 127;
        out.push_back(std::ldexp((code & 8u) != 0 ? -kTable[code & 7u] : kTable[code], scale));
      }
    return out;
  }

 private:
  Doubles fp8(const TensorView& t, const std::string& name) const {
    const Doubles scales = values(name + "_scale_inv");
    const int64_t cols = t.shape[1];
    const int64_t scale_cols = (cols + 127) / 128;
    Doubles out;
    for (int64_t i = 0; i < t.elements(); ++i) {
      const auto bits = std::to_integer<int>(t.bytes[static_cast<size_t>(i)]);
      const int exponent = (bits >> 3) & 15;
      const double fraction = (bits & 7) / 8.0;
      const double magnitude =
          exponent == 0 ? std::ldexp(fraction, -6) : std::ldexp(1.0 + fraction, exponent - 7);
      const auto scale = static_cast<size_t>(i / cols / 128 * scale_cols + i % cols / 128);
      out.push_back(((bits & 128) != 0 ? -magnitude : magnitude) * scales[scale]);
    }
    return out;
  }

  const Checkpoint& checkpoint_;
};

class SlowMoe final : public FeedForward {
 public:
  static std::unique_ptr<SlowMoe> load(const Checkpoint& checkpoint, const ModelConfig& config) {
    auto moe = std::make_unique<SlowMoe>();
    moe->c_ = config;
    const SlowReader reader(checkpoint);
    moe->layers_.resize(static_cast<size_t>(config.num_layers));
    for (int64_t l = 0; l < config.num_layers; ++l)
      if (config.moe_layers[static_cast<size_t>(l)] != 0)
        moe->layers_[static_cast<size_t>(l)] = moe->read_layer(reader, l);
    return moe;
  }

  Status forward(int64_t layer, const float* x, int64_t rows, float* y) override {
    const Layer& l = layers_[static_cast<size_t>(layer)];
    EXPECT_FALSE(l.experts.empty()) << "layer " << layer << " has no router";
    for (int64_t r = 0; r < rows; ++r) row(l, x + r * c_.hidden_size, y + r * c_.hidden_size);
    return Status();
  }

 private:
  struct Expert {
    Doubles gate, up, down;                 // [width, hidden] twice, [hidden, width]
    Doubles gate_bias, up_bias, down_bias;  // empty when absent
  };
  struct Layer {
    Doubles gate, gate_bias, correction;
    std::vector<Expert> experts;
  };
  struct Choice {
    size_t expert;
    double weight;
  };

  Layer read_layer(const SlowReader& reader, int64_t l) const {
    const TensorNames& names = tensor_names(c_);
    const auto name = [&](const std::string& tail) { return layer_tensor(c_, l, tail); };
    Layer layer;
    if (c_.dense_base) {
      layer.experts.push_back(read_expert(reader, l, 0));
      return layer;
    }
    layer.gate = reader.values(name(reader.has(name(names.gate)) ? names.gate : names.fused_gate));
    if (c_.gate_bias) layer.gate_bias = reader.values(name(names.gate_bias));
    if (c_.score_correction) layer.correction = reader.values(name(names.score_correction));
    const std::string stack = name(names.fused_gate_up);
    const bool fused = reader.has(stack) || reader.has(stack + names.fused_blocks_suffix);
    if (fused) {
      read_stacks(reader, l, layer.experts);
    } else {
      for (int64_t e = 0; e < c_.num_experts; ++e)
        layer.experts.push_back(read_expert(reader, l, e));
    }
    return layer;
  }

  Expert read_expert(const SlowReader& reader, int64_t l, int64_t e) const {
    const TensorNames& names = tensor_names(c_);
    Expert expert;
    const auto read = [&](const std::string& tail, Doubles& values, Doubles& bias) {
      const std::string name = expert_tensor(c_, l, e, tail);
      values = reader.values(name);
      if (c_.mlp_bias) bias = reader.values(name.substr(0, name.rfind('.')) + ".bias");
    };
    read(names.expert_gate, expert.gate, expert.gate_bias);
    read(names.expert_up, expert.up, expert.up_bias);
    read(names.expert_down, expert.down, expert.down_bias);
    return expert;
  }

  void read_stacks(const SlowReader& reader, int64_t l, std::vector<Expert>& out) const {
    const TensorNames& names = tensor_names(c_);
    const std::string gate_up = layer_tensor(c_, l, names.fused_gate_up);
    const std::string down = layer_tensor(c_, l, names.fused_down);
    const bool packed = !reader.has(gate_up);
    const Doubles gu = packed ? reader.mxfp4(gate_up) : reader.values(gate_up);
    const Doubles dn = packed ? reader.mxfp4(down) : reader.values(down);
    Doubles gu_bias, dn_bias;
    if (c_.expert_kind == ExpertKind::kClampedSwiGlu) {
      gu_bias = reader.values(layer_tensor(c_, l, names.fused_gate_up_bias));
      dn_bias = reader.values(layer_tensor(c_, l, names.fused_down_bias));
    }
    const bool transposed = !packed && names.fused_layout != FusedLayout::kOutIn;
    const bool interleaved = names.fused_layout == FusedLayout::kInOutInterleaved;
    const auto h = static_cast<size_t>(c_.hidden_size);
    const auto width = static_cast<size_t>(c_.intermediate_size);
    const auto at = [&](const Doubles& w, size_t e, size_t o, size_t i, size_t outs, size_t ins) {
      return w[e * outs * ins + (transposed ? i * outs + o : o * ins + i)];
    };
    for (size_t e = 0; e < static_cast<size_t>(c_.num_experts); ++e) {
      Expert expert;
      for (size_t n = 0; n < width; ++n) {
        const size_t g = interleaved ? 2 * n : n;
        const size_t u = interleaved ? 2 * n + 1 : width + n;
        for (size_t i = 0; i < h; ++i) {
          expert.gate.push_back(at(gu, e, g, i, 2 * width, h));
          expert.up.push_back(at(gu, e, u, i, 2 * width, h));
        }
        if (gu_bias.empty()) continue;
        expert.gate_bias.push_back(gu_bias[e * 2 * width + g]);
        expert.up_bias.push_back(gu_bias[e * 2 * width + u]);
      }
      for (size_t n = 0; n < h; ++n) {
        for (size_t i = 0; i < width; ++i) expert.down.push_back(at(dn, e, n, i, h, width));
        if (!dn_bias.empty()) expert.down_bias.push_back(dn_bias[e * h + n]);
      }
      out.push_back(std::move(expert));
    }
  }

  static std::vector<size_t> largest(const Doubles& scores, int64_t k) {
    std::vector<size_t> order(scores.size());
    std::iota(order.begin(), order.end(), size_t{0});
    std::stable_sort(order.begin(), order.end(),
                     [&](size_t a, size_t b) { return scores[a] > scores[b]; });
    order.resize(static_cast<size_t>(k));
    return order;
  }

  static Doubles softmax(Doubles v) {
    const double top = *std::max_element(v.begin(), v.end());
    double total = 0;
    for (double& x : v) total += x = std::exp(x - top);
    for (double& x : v) x /= total;
    return v;
  }

  /// Scores of experts outside the best groups become -infinity.
  Doubles group_limited(Doubles scores) const {
    const size_t size = scores.size() / static_cast<size_t>(c_.n_group);
    Doubles groups;
    for (size_t g = 0; g < scores.size(); g += size) {
      Doubles one(scores.begin() + static_cast<int64_t>(g),
                  scores.begin() + static_cast<int64_t>(g + size));
      std::sort(one.rbegin(), one.rend());
      const bool sums = c_.gate_kind == GateKind::kGroupedSigmoid && one.size() > 1;
      groups.push_back(sums ? one[0] + one[1] : one[0]);
    }
    const std::vector<size_t> kept = largest(groups, c_.topk_group);
    for (size_t e = 0; e < scores.size(); ++e)
      if (std::find(kept.begin(), kept.end(), e / size) == kept.end()) scores[e] = -INFINITY;
    return scores;
  }

  std::vector<Choice> choose(const Layer& layer, const Doubles& x) const {
    if (c_.dense_base) return {{0, 1.0}};
    Doubles z = product(layer.gate, x);
    for (size_t e = 0; e < layer.gate_bias.size(); ++e) z[e] += layer.gate_bias[e];
    Doubles p = z;       // what the weights are made of
    Doubles scores = z;  // what the choice is made by
    if (c_.gate_kind == GateKind::kSoftmaxTopK) p = softmax(z);
    if (c_.gate_kind == GateKind::kTopKSigmoid || c_.gate_kind == GateKind::kGroupedSigmoid)
      for (double& v : p) v = sigmoid(v);
    if (c_.gate_kind == GateKind::kGroupedSigmoid) {
      scores = p;
      for (size_t e = 0; e < scores.size(); ++e) scores[e] += layer.correction[e];
    }
    if (c_.gate_kind == GateKind::kGroupedSigmoid || c_.n_group > 1) scores = group_limited(scores);
    std::vector<Choice> out;
    Doubles weights;
    for (const size_t e : largest(scores, c_.num_experts_per_tok)) {
      out.push_back({e, 0.0});
      weights.push_back(p[e]);
    }
    if (c_.gate_kind == GateKind::kTopKSoftmax) weights = softmax(weights);
    if (c_.norm_topk_prob) {
      const double total = std::accumulate(weights.begin(), weights.end(), 0.0);
      for (double& w : weights) w /= total;
    }
    for (size_t i = 0; i < out.size(); ++i)
      out[i].weight = weights[i] * static_cast<double>(c_.routed_scaling_factor);
    return out;
  }

  static void add(Doubles& y, const Doubles& bias) {
    for (size_t i = 0; i < bias.size(); ++i) y[i] += bias[i];
  }

  Doubles run(const Expert& expert, const Doubles& x) const {
    Doubles gate = product(expert.gate, x);
    Doubles up = product(expert.up, x);
    add(gate, expert.gate_bias);
    add(up, expert.up_bias);
    for (size_t i = 0; i < gate.size(); ++i) {
      if (c_.expert_kind == ExpertKind::kClampedSwiGlu) {
        const double g = std::min(gate[i], 7.0);
        gate[i] = (std::clamp(up[i], -7.0, 7.0) + 1.0) * g * sigmoid(1.702 * g);
      } else {
        gate[i] *= sigmoid(gate[i]) * up[i];
      }
    }
    Doubles y = product(expert.down, gate);
    add(y, expert.down_bias);
    return y;
  }

  void row(const Layer& layer, const float* x_in, float* y_out) const {
    const Doubles x(x_in, x_in + c_.hidden_size);
    Doubles y(x.size(), 0.0);
    for (const Choice& choice : choose(layer, x)) {
      Doubles in = x;
      if (c_.score_scales_input)
        for (double& v : in) v *= choice.weight;
      const Doubles out = run(layer.experts[choice.expert], in);
      const double weight = c_.score_scales_input ? 1.0 : choice.weight;
      for (size_t i = 0; i < y.size(); ++i) y[i] += weight * out[i];
    }
    for (size_t i = 0; i < y.size(); ++i) y_out[i] = static_cast<float>(y[i]);
  }

  ModelConfig c_;
  std::vector<Layer> layers_;  // without experts where the layer has no router
};

}  // namespace chimera::testing
