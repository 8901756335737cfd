// `chimera module diff`: how far two parents are apart, group of tensors by group.
//
// Thread safety: free functions, from any thread.
#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "base/status.h"

namespace chimera {

/// Tensors of one kind in one layer: "routed_experts", layer 3.
struct DiffGroup {
  std::string set;
  int64_t layer = -1;  // -1: outside the layers
  size_t tensors = 0;
  uint64_t elements = 0;
  double rms = 0;      // ‖ΔW‖_F / √elements, over the group
  double largest = 0;  // of any single tensor: what δ is compared with
  std::string largest_name;
  double changed = 0;  // share of elements that differ, 0 to 1
  double cosine = 1;   // between the flattened tensors
  /// Singular values of ΔW of the tensor with the largest RMS, descending, divided by their norm;
  /// empty unless it is a matrix that is small enough.
  std::vector<double> spectrum;
  /// exp of the entropy of the squared values: 1 is a rank-one change.
  double effective_rank = 0;
};

struct DiffOptions {
  int threads = 1;
  int64_t spectrum = 8;  // values that are kept; 0: none are computed
};

/// Both checkpoints or both modules, with the same tensors. failed_precondition naming those that
/// are not.
Result<std::vector<DiffGroup>> diff_parents(const std::string& a, const std::string& b,
                                            const DiffOptions& options);

std::string diff_table(const std::vector<DiffGroup>& groups);
std::string diff_csv(const std::vector<DiffGroup>& groups);
/// One object per group and line.
std::string diff_json(const std::vector<DiffGroup>& groups);
/// RMS over the layers, a line per set, as SVG.
Status write_diff_plot(const std::vector<DiffGroup>& groups, const std::string& path);

}  // namespace chimera
