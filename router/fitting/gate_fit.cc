#include "router/fitting/gate_fit.h"

#include <Eigen/Dense>
#include <algorithm>
#include <cmath>
#include <functional>
#include <numeric>

namespace chimera {
namespace {

using Rows = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
using Vector = Eigen::VectorXd;

constexpr double kGradientEnough = 1e-6;  // of a mean of cross-entropies
constexpr int kMostProducts = 60;         // of conjugate gradients in a step
constexpr int kMostHalvings = 30;

/// log(1 + exp(t)) without overflow.
double softplus(double t) { return std::max(t, 0.0) + std::log1p(std::exp(-std::fabs(t))); }
double sigmoid(double t) {
  return t >= 0 ? 1 / (1 + std::exp(-t)) : std::exp(t) / (1 + std::exp(t));
}

/// The loss over theta = (w * s, b).
class Objective {
 public:
  Objective(const GateSamples& samples, int64_t hidden, const GateFitOptions& options)
      : samples_(samples),
        z_(Eigen::Map<const Rows>(samples.x.data(), static_cast<int64_t>(samples.wanted.size()),
                                  hidden)),
        ridge_(options.ridge) {
    const Eigen::RowVectorXf mean = z_.colwise().mean();
    const auto n = static_cast<float>(z_.rows());
    scale_ = ((z_.rowwise() - mean).colwise().squaredNorm() / n).cwiseSqrt();
    for (float& s : scale_) s = s > 0 ? s : 1.0f;
    z_.array().rowwise() /= scale_.array();
    const auto wanted = std::accumulate(samples.wanted.begin(), samples.wanted.end(), 0.0);
    const double odds = std::exp(options.prior);
    const double others = static_cast<double>(samples.wanted.size()) - wanted;
    for (const uint8_t is : samples.wanted) {
      weight_.push_back((is != 0 ? odds / wanted : 1 / others) / (odds + 1));
    }
  }

  int64_t size() const { return z_.cols() + 1; }
  const Eigen::RowVectorXf& scale() const { return scale_; }

  Vector logits(const Vector& theta) const {
    Vector out = (z_ * theta.head(size() - 1).cast<float>()).cast<double>();
    for (int64_t i = 0; i < out.size(); ++i) out[i] += theta[size() - 1] - samples_.offset[at(i)];
    return out;
  }
  double cross_entropy(const Vector& logits) const {
    double sum = 0;
    for (int64_t i = 0; i < logits.size(); ++i) {
      sum += weight_[at(i)] * softplus(samples_.wanted[at(i)] != 0 ? -logits[i] : logits[i]);
    }
    return sum;
  }
  double value(const Vector& theta) const {
    return cross_entropy(logits(theta)) + ridge_ / 2 * theta.head(size() - 1).squaredNorm();
  }
  /// And the second derivatives by the logits.
  Vector gradient(const Vector& theta, Vector& curvature) const {
    Vector slope = logits(theta);
    curvature.resize(slope.size());
    for (int64_t i = 0; i < slope.size(); ++i) {
      const double p = sigmoid(slope[i]);
      curvature[i] = weight_[at(i)] * p * (1 - p);
      slope[i] = weight_[at(i)] * (p - (samples_.wanted[at(i)] != 0 ? 1 : 0));
    }
    return pulled(slope, theta);
  }
  Vector product(const Vector& curvature, const Vector& v) const {
    Vector u = (z_ * v.head(size() - 1).cast<float>()).cast<double>();
    u.array() += v[size() - 1];
    return pulled(u.cwiseProduct(curvature), v);
  }

 private:
  static size_t at(int64_t i) { return static_cast<size_t>(i); }
  /// Z^T u, and the ridge's share at `theta`.
  Vector pulled(const Vector& u, const Vector& theta) const {
    Vector out(size());
    out.head(size() - 1) = (z_.transpose() * u.cast<float>()).cast<double>();
    out.head(size() - 1) += ridge_ * theta.head(size() - 1);
    out[size() - 1] = u.sum();
    return out;
  }

  const GateSamples& samples_;
  Rows z_;  // [n, hidden], each feature divided by its deviation
  Eigen::RowVectorXf scale_;
  const double ridge_;
  std::vector<double> weight_;  // c_i
};

/// About the solution of H d = -g, and a direction downhill in any case.
Vector newton_direction(const Objective& objective, const Vector& curvature, const Vector& g) {
  Vector d = Vector::Zero(g.size()), r = -g, p = r;
  double rr = r.squaredNorm();
  const double enough = rr * std::min(0.25, std::sqrt(g.norm()));
  for (int i = 0; i < kMostProducts && rr > enough; ++i) {
    const Vector hp = objective.product(curvature, p);
    const double bend = p.dot(hp);
    if (bend <= 0) break;  // rounding: H is positive semidefinite
    const double alpha = rr / bend;
    d += alpha * p;
    r -= alpha * hp;
    const double next = r.squaredNorm();
    p = r + next / rr * p;
    rr = next;
  }
  return d.squaredNorm() > 0 ? d : Vector(-g);
}

}  // namespace

float log_sum_exp(std::span<const float> values, size_t k) {
  std::vector<float> sorted(values.begin(), values.end());
  k = std::min(k, sorted.size());
  if (k == 0) return -HUGE_VALF;
  std::partial_sort(sorted.begin(), sorted.begin() + static_cast<int64_t>(k), sorted.end(),
                    std::greater<>());
  double sum = 0;
  for (size_t i = 0; i < k; ++i) sum += std::exp(double{sorted[i]} - double{sorted[0]});
  return static_cast<float>(sorted[0] + std::log(sum));
}

FittedGate fit_gate(const GateSamples& samples, int64_t hidden, const GateFitOptions& options) {
  const Objective objective(samples, hidden, options);
  Vector theta = Vector::Zero(objective.size());
  double value = objective.value(theta);
  FittedGate out;
  for (; out.steps < options.steps; ++out.steps) {
    Vector curvature;
    const Vector g = objective.gradient(theta, curvature);
    if (g.norm() < kGradientEnough) break;
    const Vector d = newton_direction(objective, curvature, g);
    const double slope = g.dot(d);
    double step = 1;
    int halvings = 0;
    double next = objective.value(theta + d);
    while (next > value + 1e-4 * step * slope && ++halvings < kMostHalvings) {
      step /= 2;
      next = objective.value(theta + step * d);
    }
    if (next >= value) break;  // as far as floats tell
    theta += step * d;
    value = next;
  }
  for (int64_t i = 0; i < hidden; ++i) {
    out.weight.push_back(static_cast<float>(theta[i] / objective.scale()[i]));
  }
  out.bias = static_cast<float>(theta[hidden]);
  out.loss = objective.cross_entropy(objective.logits(theta));
  return out;
}

}  // namespace chimera
