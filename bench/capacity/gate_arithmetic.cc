#include "capacity/gate_arithmetic.h"

#include <algorithm>
#include <bit>
#include <stdexcept>

#include "backbone/checkpoint/check.h"
#include "router/gating.h"
#include "stats.h"

namespace chimera::bench {
namespace {

constexpr int kTokens = 61;         // measured at a time, with the gate and without it
constexpr int64_t kShares = 4;      // of a thread in a loop
constexpr int64_t kMostTopK = 256;  // as many as any checkpoint chooses

/// Numbers in [-0.1, 0.1), the same every time.
class Numbers {
 public:
  float next() {
    state_ = state_ * 6364136223846793005u + 1442695040888963407u;
    return 0.1f * (static_cast<float>(state_ >> 40) * 0x1p-23f - 1.0f);
  }

 private:
  uint64_t state_ = 1;
};

ModelConfig config_of(const std::string& backbone) {
  const auto checkpoint = Checkpoint::open(backbone, Residency::kMapped);
  if (!checkpoint.ok()) throw std::runtime_error(checkpoint.status().to_string());
  const auto config = read_model_config(*checkpoint);
  if (!config.ok()) throw std::runtime_error(config.status().to_string());
  return *config;
}

}  // namespace

GateArithmetic::GateArithmetic(const std::string& backbone, int64_t modules, int threads)
    : kernels_(best_kernels()),
      config_(config_of(backbone)),
      candidates_(config_.num_experts + modules),
      rest_rows_(4 * config_.hidden_size + 6 * config_.intermediate_size),
      pool_(threads > 0 ? threads : auto_threads()),
      layers_(static_cast<size_t>(config_.num_layers)),
      x_(static_cast<size_t>(config_.hidden_size)),
      logits_(static_cast<size_t>(candidates_)),
      y_(static_cast<size_t>(rest_rows_)) {
  Numbers numbers;
  const int64_t hidden = config_.hidden_size;
  for (Layer& layer : layers_) {
    layer.gate.resize(static_cast<size_t>(candidates_ * hidden));
    layer.rest.resize(static_cast<size_t>(rest_rows_ * hidden));
    for (float& value : layer.gate) value = numbers.next();
    for (uint16_t& value : layer.rest)
      value = static_cast<uint16_t>(std::bit_cast<uint32_t>(numbers.next()) >> 16);
  }
  for (float& value : x_) value = 10.0f * numbers.next();
}

void GateArithmetic::multiply(const Matrix& weights, float* y) {
  const int64_t shares = kShares * pool_.threads();
  pool_.parallel_for(
      weights.rows, (weights.rows + shares - 1) / shares, [&](int64_t begin, int64_t end) {
        kernels_.matmul(x_.data(), 1, weights.cols, weights, begin, end, y, weights.rows);
      });
}

double GateArithmetic::pass(double* choice_ms) {
  const int64_t hidden = config_.hidden_size;
  const int64_t k = std::clamp<int64_t>(config_.num_experts_per_tok, 2, kMostTopK);
  GateChoice chosen[kMostTopK];
  float entropy = 0;
  const double begin = now_s();
  for (const Layer& layer : layers_) {
    multiply({layer.rest.data(), WeightFormat::kBF16, rest_rows_, hidden, nullptr}, y_.data());
    if (choice_ms == nullptr) continue;
    multiply({layer.gate.data(), WeightFormat::kF32, candidates_, hidden, nullptr}, logits_.data());
    const double multiplied = now_s();
    (void)select_experts(gate_rule(config_), {logits_, {}, {}}, k, chosen, &entropy);
    *choice_ms += 1e3 * (now_s() - multiplied);
  }
  return 1e3 * (now_s() - begin);
}

GateArithmetic::Milliseconds GateArithmetic::measure() {
  // Each many times in a row, as a step follows another: the caches are then as it leaves them.
  std::vector<double> with, without, choice;
  for (int token = 0; token < kTokens; ++token) without.push_back(pass(nullptr));
  for (int token = 0; token < kTokens; ++token) {
    double choice_ms = 0;
    with.push_back(pass(&choice_ms));
    choice.push_back(choice_ms);
  }
  return {quantile(with, 0.5) - quantile(without, 0.5), quantile(choice, 0.5)};
}

}  // namespace chimera::bench
