// The arithmetic of merging, element by element.
//
// W_1 is the base, τ_i = W_i − W_1 the task vector of parent i, λ_i its coefficient, Λ = Σ_{i>1}
// λ_i.
//
//   linear           Σ_i λ_i W_i                     model soups, Wortsman et al., arXiv
//   2203.05482;
//                                                    Assembly of Experts, arXiv 2506.14794, eq. 1
//   task_arithmetic  W_1 + s Σ_{i>1} λ_i τ_i         Ilharco et al., arXiv 2212.04089
//   ties             W_1 + s m(τ̂),  τ̂_i = τ_i where |τ_i| is among the density·n largest of its
//                    tensor (all that equal the smallest of them are), else 0;
//                    sign γ = sgn(Σ λ_i τ̂_i) (+ at 0), A = {i : sgn(λ_i τ̂_i) = γ},
//                    m = c Σ_{i∈A} λ_i τ̂_i / Σ_{i∈A} λ_i   Yadav et al., arXiv 2306.01708, section
//                    3
//   dare_linear      W_1 + s Σ_{i>1} λ_i τ̃_i,  τ̃_i = b τ_i / density, b ~ Bernoulli(density)
//                                                    Yu et al., arXiv 2311.03099, eq. 2 and 3
//   dare_ties        ties with τ̃ in place of τ̂
//   slerp            (sin((1−t)Ω) W_a + sin(tΩ) W_b) / sin Ω, t = λ_b, Ω the angle between the two
//                    flattened tensors; linear where |cos Ω| > 0.9995 or a tensor is all zeros
//                                                    Shoemake, SIGGRAPH 1985
//
// c is Λ (Consensus::kPaper: with equal λ_i = λ/n this is the paper's λ times the mean over A, with
// one parent it is λ τ̂), 1 (kMean) or Σ_{i∈A} λ_i, which leaves the sum (kSum). s is
// MergeRule::scale. A tensor is merged where max_i ‖W_i − W_1‖_F / √n > δ, else it is the base's,
// bit for bit.
//
// Sums are float64 in the order of the parents, and rounded once, to nearest even. b of element k
// of the tensor `name` and parent i is u(seed, name, i, k) < density, with u a hash (below), so
// that neither threads nor layouts nor the order of work matter.
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string_view>
#include <vector>

#include "compute/tensor/tensor.h"
#include "experts/assembly/recipe/recipe.h"

namespace chimera {

/// All that the merge of one tensor needs beside the parents' numbers.
struct Merge {
  MergeMethod method = MergeMethod::kLinear;
  std::vector<double> lambda;     // [parents]; of slerp: the factors sin(…)/sin Ω
  std::vector<double> density;    // [parents]
  std::vector<double> threshold;  // [parents]; ties: smallest |τ| that is kept
  std::vector<uint64_t> key;      // [parents]; dare: draw_key()
  Consensus consensus = Consensus::kPaper;
  double scale = 1;
};

/// Elements [first, first + n) of the tensor: parents[i] points to n numbers of parent i, or is
/// null where λ_i = 0 takes it out. Writes out [n].
void merge_elements(const Merge& merge, std::span<const float* const> parents, uint64_t first,
                    size_t n, double* out);

/// Rounds n numbers once, to nearest even, to F32, F16 or BF16. False: one of them does not fit
/// (overflows), or is none.
bool round_elements(const double* from, size_t n, DType dtype, std::byte* to);

/// Key of the draws for one tensor and parent: mix(mix(seed ⊕ FNV-1a64(name)) + i·φ), with
/// φ = 0x9e3779b97f4a7c15 and mix the finaliser of splitmix64.
uint64_t draw_key(uint64_t seed, std::string_view name, size_t parent);
/// mix(key + (k + 1)·φ) >> 11: uniform over 53 bits.
uint64_t draw(uint64_t key, uint64_t k);

/// Weights of slerp from <a, b>, <a, a> and <b, b>.
std::pair<double, double> slerp_weights(double dot, double aa, double bb, double t);

}  // namespace chimera
