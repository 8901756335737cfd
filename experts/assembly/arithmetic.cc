#include "experts/assembly/arithmetic.h"

#include <algorithm>
#include <cmath>
#include <cstring>

namespace chimera {
namespace {

constexpr uint64_t kPhi = 0x9e37'79b9'7f4a'7c15u;
constexpr double kTwo53 = 9007199254740992.0;
// As mergekit: nearer to parallel, sin Ω loses its digits.
constexpr double kNearlyParallel = 0.9995;

uint64_t mix(uint64_t z) {
  z = (z ^ (z >> 30)) * 0xbf58'476d'1ce4'e5b9u;
  z = (z ^ (z >> 27)) * 0x94d0'49bb'1331'11ebu;
  return z ^ (z >> 31);
}

using Parents = std::span<const float* const>;

void add_linear(const Merge& merge, Parents parents, size_t n, double* out) {
  bool first = true;  // which is stored, not added to 0: that would make -0 a 0
  for (size_t p = 0; p < parents.size(); ++p) {
    if (parents[p] == nullptr) continue;
    const double lambda = merge.lambda[p];
    const float* w = parents[p];
    if (first) {
      for (size_t i = 0; i < n; ++i) out[i] = lambda * static_cast<double>(w[i]);
    } else {
      for (size_t i = 0; i < n; ++i) out[i] += lambda * static_cast<double>(w[i]);
    }
    first = false;
  }
}

void add_differences(const Merge& merge, Parents parents, size_t n, double* out) {
  const float* base = parents[0];
  std::fill(out, out + n, 0.0);
  for (size_t p = 1; p < parents.size(); ++p) {
    if (parents[p] == nullptr) continue;
    const double lambda = merge.lambda[p];
    const float* w = parents[p];
    for (size_t i = 0; i < n; ++i) {
      out[i] += lambda * (static_cast<double>(w[i]) - static_cast<double>(base[i]));
    }
  }
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<double>(base[i]) + merge.scale * out[i];
}

/// τ̂ or τ̃ of element i.
double sparse(const Merge& merge, size_t p, const float* w, const float* base, uint64_t first,
              size_t i) {
  const double tau = static_cast<double>(w[i]) - static_cast<double>(base[i]);
  if (merge.method == MergeMethod::kTies) {
    return std::fabs(tau) >= merge.threshold[p] ? tau : 0.0;
  }
  const double density = merge.density[p];
  if (density >= 1) return tau;
  const bool kept = static_cast<double>(draw(merge.key[p], first + i)) < density * kTwo53;
  return kept ? tau / density : 0.0;
}

void add_dare(const Merge& merge, Parents parents, uint64_t first, size_t n, double* out) {
  const float* base = parents[0];
  std::fill(out, out + n, 0.0);
  for (size_t p = 1; p < parents.size(); ++p) {
    if (parents[p] == nullptr) continue;
    for (size_t i = 0; i < n; ++i) {
      out[i] += merge.lambda[p] * sparse(merge, p, parents[p], base, first, i);
    }
  }
  for (size_t i = 0; i < n; ++i) out[i] = static_cast<double>(base[i]) + merge.scale * out[i];
}

void add_consensus(const Merge& merge, Parents parents, uint64_t first, size_t n, double* out) {
  const float* base = parents[0];
  double all = 0;
  for (size_t p = 1; p < parents.size(); ++p) all += merge.lambda[p];
  std::vector<double> weighted(parents.size());
  for (size_t i = 0; i < n; ++i) {
    double sum = 0;
    for (size_t p = 1; p < parents.size(); ++p) {
      weighted[p] = 0;
      if (parents[p] == nullptr) continue;
      weighted[p] = merge.lambda[p] * sparse(merge, p, parents[p], base, first, i);
      sum += weighted[p];
    }
    double agree = 0, weight = 0;
    for (size_t p = 1; p < parents.size(); ++p) {
      if (weighted[p] == 0 || (weighted[p] > 0) != (sum >= 0)) continue;
      agree += weighted[p];
      weight += merge.lambda[p];
    }
    double merged = agree;
    if (merge.consensus != Consensus::kSum && weight != 0) {
      merged = agree / weight * (merge.consensus == Consensus::kPaper ? all : 1.0);
    }
    out[i] = static_cast<double>(base[i]) + merge.scale * merged;
  }
}

/// To F32 with the last bit set where anything is lost (round to odd): rounding that again to fewer
/// bits is rounding the double once.
uint32_t to_odd(double value) {
  const auto nearest = static_cast<float>(value);
  uint32_t bits;
  std::memcpy(&bits, &nearest, sizeof(bits));
  const auto back = static_cast<double>(nearest);
  bits -= std::fabs(back) > std::fabs(value) ? 1u : 0u;
  bits |= back != value ? 1u : 0u;
  return bits;
}

}  // namespace

uint64_t draw_key(uint64_t seed, std::string_view name, size_t parent) {
  uint64_t hash = 0xcbf2'9ce4'8422'2325u;
  for (const char c : name) hash = (hash ^ static_cast<unsigned char>(c)) * 0x100'0000'01b3u;
  return mix(mix(seed ^ hash) + parent * kPhi);
}

uint64_t draw(uint64_t key, uint64_t k) { return mix(key + (k + 1) * kPhi) >> 11; }

std::pair<double, double> slerp_weights(double dot, double aa, double bb, double t) {
  const double norm = std::sqrt(aa) * std::sqrt(bb);
  if (norm == 0) return {1 - t, t};
  const double cosine = std::clamp(dot / norm, -1.0, 1.0);
  if (std::fabs(cosine) > kNearlyParallel) return {1 - t, t};
  const double omega = std::acos(cosine);
  return {std::sin((1 - t) * omega) / std::sin(omega), std::sin(t * omega) / std::sin(omega)};
}

void merge_elements(const Merge& merge, Parents parents, uint64_t first, size_t n, double* out) {
  switch (merge.method) {
    case MergeMethod::kLinear:
    case MergeMethod::kSlerp:
      return add_linear(merge, parents, n, out);
    case MergeMethod::kTaskArithmetic:
      return add_differences(merge, parents, n, out);
    case MergeMethod::kDareLinear:
      return add_dare(merge, parents, first, n, out);
    case MergeMethod::kTies:
    case MergeMethod::kDareTies:
      return add_consensus(merge, parents, first, n, out);
  }
}

bool round_elements(const double* from, size_t n, DType dtype, std::byte* to) {
  uint32_t bad = 0;
  if (dtype == DType::kF32) {
    for (size_t i = 0; i < n; ++i) {
      const auto value = static_cast<float>(from[i]);
      uint32_t bits;
      std::memcpy(&bits, &value, sizeof(bits));
      bad |= (bits & 0x7f80'0000u) == 0x7f80'0000u ? 1u : 0u;
      std::memcpy(to + 4 * i, &bits, sizeof(bits));
    }
  } else if (dtype == DType::kBF16) {
    for (size_t i = 0; i < n; ++i) {
      const uint32_t bits = to_odd(from[i]);
      const auto half = static_cast<uint16_t>((bits + 0x7fffu + ((bits >> 16) & 1u)) >> 16);
      bad |= (half & 0x7f80u) == 0x7f80u ? 1u : 0u;
      std::memcpy(to + 2 * i, &half, sizeof(half));
    }
  } else {
    for (size_t i = 0; i < n; ++i) {
      const uint32_t bits = to_odd(from[i]);
      float odd;
      std::memcpy(&odd, &bits, sizeof(odd));
      const uint16_t half = f32_to_f16(odd);
      bad |= (half & 0x7c00u) == 0x7c00u ? 1u : 0u;
      std::memcpy(to + 2 * i, &half, sizeof(half));
    }
  }
  return bad == 0;
}

}  // namespace chimera
