// A gate row as a classifier: logistic regression of "is this token of the text that the module is
// for?" on what the gate sees.
//
// Under a softmax gate the share of the module's experts in a token x is
//
//   p(x) = sigma(w.x + b - o(x)),   o(x) = log sum_e exp(logit_e(x)) over the experts it competes
//                                   with, minus log sum_j exp(d_j.x) of its own,
//
// where its experts' rows are w + d_j. So with o given, w and b that minimise
//
//   sum_i c_i CE(p(x_i), y_i) + ridge / 2 |w / s|^2,     s: standard deviation of each feature
//
// give each token the share that a text of its kind is due. The problem is convex; it is solved by
// Newton steps whose systems conjugate gradients solve (truncated Newton; Nocedal and Wright,
// Numerical Optimization, 7.1), 2 passes over the samples for each product.
//
// Thread safety: pure functions.
#pragma once

#include <cstdint>
#include <span>
#include <vector>

namespace chimera {

/// Tokens of one layer. `n` = wanted.size().
struct GateSamples {
  std::vector<float> x;         // [n, hidden]: what the gate sees
  std::vector<float> offset;    // [n]: o(x)
  std::vector<uint8_t> wanted;  // [n]: 1 of the text that the module is for, else 0
};

struct GateFitOptions {
  double ridge = 1e-3;
  double prior = 0;  // added to the log-odds of wanted tokens
  int steps = 50;    // of Newton's method, at the most
};

struct FittedGate {
  std::vector<float> weight;  // [hidden]
  float bias = 0;
  double loss = 0;  // mean cross-entropy, nats; log 2 is what a coin knows
  int steps = 0;
};

/// Both kinds of tokens count alike, however many there are of each. REQUIRES: some of each.
FittedGate fit_gate(const GateSamples& samples, int64_t hidden, const GateFitOptions& options);

/// log sum exp of the `k` largest values.
float log_sum_exp(std::span<const float> values, size_t k);

}  // namespace chimera
