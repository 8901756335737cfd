#include "experts/assembly/assembler.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>

#include "base/quote.h"
#include "base/threads/background.h"

namespace chimera {
namespace {

Status not_finite(const AssemblyPlan& plan, const PlannedTensor& tensor, size_t parent,
                  int64_t begin, const float* values, size_t n) {
  const auto at = static_cast<int64_t>(
      std::find_if(values, values + n, [](float v) { return !std::isfinite(v); }) - values);
  return {Code::kDataCorrupt,
          fmt::format("{}: tensor {}: found {} in row {} (expected finite numbers)",
                      plan.parents[parent]->path(), quote(tensor.traits.name),
                      std::isnan(values[at]) ? "NaN" : "infinity",
                      begin + at / std::max<int64_t>(1, tensor.base().cols())),
          "The weights are broken; export them again."};
}

}  // namespace

int64_t chunk_rows(const TensorData& tensor) {
  return std::max<int64_t>(1, kChunkElements / std::max<int64_t>(1, tensor.cols()));
}

void Assembler::release(const PlannedTensor& tensor, int64_t begin, int64_t end) const {
  uint64_t bytes = 0;
  for (const TensorData* data : tensor.parents) bytes += data->stored_bytes(data->rows());
  if (bytes <= release_above_) return;
  for (const TensorData* data : tensor.parents) data->release(begin, end);
}

/// Whether any parent has another number anywhere. Two trainings differ at once, as a rule.
bool Assembler::any_difference(const PlannedTensor& tensor) const {
  const int64_t rows = tensor.base().rows();
  const int64_t step = chunk_rows(tensor.base());
  const auto cols = static_cast<size_t>(tensor.base().cols());
  std::atomic<bool> found = false;
  const auto look = [&](int64_t begin, int64_t end) {
    std::vector<float> base(static_cast<size_t>(step) * cols), other(base.size());
    for (int64_t chunk = begin; chunk < end && !found.load(std::memory_order_relaxed); ++chunk) {
      const int64_t first = chunk * step, last = std::min(rows, first + step);
      const size_t n = static_cast<size_t>(last - first) * cols;
      tensor.base().widen(first, last, base.data());
      for (size_t p = 1; p < tensor.parents.size(); ++p) {
        if (tensor.parents[p] == tensor.parents[0]) continue;
        tensor.parents[p]->widen(first, last, other.data());
        // NaN differs from itself: it is met again where it is named.
        if (std::equal(base.begin(), base.begin() + static_cast<int64_t>(n), other.begin()))
          continue;
        found.store(true, std::memory_order_relaxed);
      }
      release(tensor, first, last);
      give_way();
    }
  };
  const int64_t chunks = (rows + step - 1) / step;
  look(0, std::min<int64_t>(1, chunks));
  if (found || chunks <= 1) return found;
  pool_.parallel_for(chunks - 1, 1, [&](int64_t begin, int64_t end) { look(begin + 1, end + 1); });
  return found;
}

/// max_i ‖W_i − W_1‖_F / √n; NaN counts as infinite, so that it is met and named.
double Assembler::largest_difference(const PlannedTensor& tensor) const {
  const int64_t rows = tensor.base().rows();
  const int64_t step = chunk_rows(tensor.base());
  const auto cols = static_cast<size_t>(tensor.base().cols());
  const int64_t chunks = (rows + step - 1) / step;
  const size_t parents = tensor.parents.size();
  std::vector<double> sums(static_cast<size_t>(chunks) * parents, 0.0);
  pool_.parallel_for(chunks, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> base(static_cast<size_t>(step) * cols), other(base.size());
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t first = chunk * step, last = std::min(rows, first + step);
      const size_t n = static_cast<size_t>(last - first) * cols;
      tensor.base().widen(first, last, base.data());
      for (size_t p = 1; p < parents; ++p) {
        if (tensor.parents[p] == tensor.parents[0]) continue;
        tensor.parents[p]->widen(first, last, other.data());
        double sum = 0;
        for (size_t i = 0; i < n; ++i) {
          const double d = static_cast<double>(other[i]) - static_cast<double>(base[i]);
          sum += d * d;
        }
        sums[static_cast<size_t>(chunk) * parents + p] = sum;
      }
      release(tensor, first, last);
      give_way();
    }
  });
  double largest = 0;
  for (size_t p = 1; p < parents; ++p) {
    double sum = 0;
    for (int64_t chunk = 0; chunk < chunks; ++chunk) {
      sum += sums[static_cast<size_t>(chunk) * parents + p];
    }
    if (std::isnan(sum)) return HUGE_VAL;
    largest = std::max(largest, sum);
  }
  const auto n = static_cast<double>(tensor.base().elements());
  return n == 0 ? 0 : std::sqrt(largest / n);
}

void Assembler::set_slerp(const PlannedTensor& tensor, Merge& merge) const {
  std::vector<size_t> used;
  for (size_t p = 0; p < merge.lambda.size(); ++p) {
    if (merge.lambda[p] != 0) used.push_back(p);
  }
  if (used.size() != 2) return;  // one of them alone
  const TensorData& a = *tensor.parents[used[0]];
  const TensorData& b = *tensor.parents[used[1]];
  const int64_t rows = a.rows(), step = chunk_rows(a);
  const auto cols = static_cast<size_t>(a.cols());
  const int64_t chunks = (rows + step - 1) / step;
  std::vector<std::array<double, 3>> sums(static_cast<size_t>(chunks));
  pool_.parallel_for(chunks, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> x(static_cast<size_t>(step) * cols), y(x.size());
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t first = chunk * step, last = std::min(rows, first + step);
      a.widen(first, last, x.data());
      b.widen(first, last, y.data());
      std::array<double, 3> sum{};
      for (size_t i = 0; i < static_cast<size_t>(last - first) * cols; ++i) {
        const double u = x[i], v = y[i];
        sum[0] += u * v;
        sum[1] += u * u;
        sum[2] += v * v;
      }
      sums[static_cast<size_t>(chunk)] = sum;
      release(tensor, first, last);
      give_way();
    }
  });
  std::array<double, 3> all{};
  for (const auto& sum : sums) {
    for (size_t i = 0; i < all.size(); ++i) all[i] += sum[i];
  }
  const auto [wa, wb] = slerp_weights(all[0], all[1], all[2], merge.lambda[used[1]]);
  merge.lambda[used[0]] = wa;
  merge.lambda[used[1]] = wb;
}

Measured Assembler::measure(const PlannedTensor& tensor) const {
  Measured out;
  if (tensor.base_only() || tensor.base().elements() == 0) return out;
  out.merged =
      tensor.delta > 0 ? largest_difference(tensor) > tensor.delta : any_difference(tensor);
  if (!out.merged) return out;
  out.merge = tensor.merge;
  if (tensor.merge.method == MergeMethod::kSlerp) set_slerp(tensor, out.merge);
  if (tensor.merge.method == MergeMethod::kTies) {
    for (size_t p = 1; p < tensor.parents.size(); ++p) {
      if (tensor.merge.lambda[p] == 0 || tensor.merge.density[p] >= 1) continue;
      out.merge.threshold[p] = trim_threshold(tensor, p, tensor.merge.density[p]);
    }
  }
  return out;
}

Status Assembler::copy_base(const PlannedTensor& tensor, int64_t begin, int64_t end, std::byte* out,
                            AssemblyScratch& scratch) const {
  const TensorData& base = tensor.base();
  if (base.opaque()) {
    base.raw(begin, end, out);
    return {};
  }
  const auto n = static_cast<size_t>((end - begin) * base.cols());
  scratch.parents[0].resize(n);
  base.widen(begin, end, scratch.parents[0].data());
  const float* values = scratch.parents[0].data();
  if (!all_finite(values, n)) return not_finite(plan_, tensor, 0, begin, values, n);
  if (!base.quantised() && base.dtype() == tensor.dtype) {
    base.raw(begin, end, out);
    return {};
  }
  scratch.sums.assign(values, values + n);
  if (round_elements(scratch.sums.data(), n, tensor.dtype, out)) return {};
  return {Code::kFailedPrecondition,
          fmt::format("tensor {}: found numbers beyond the range of {} (expected a wider output "
                      "dtype)",
                      quote(tensor.traits.name), dtype_name(tensor.dtype))};
}

Status Assembler::rows(const PlannedTensor& tensor, const Measured& measured, int64_t begin,
                       int64_t end, std::byte* out, AssemblyScratch& scratch) const {
  scratch.parents.resize(std::max(scratch.parents.size(), plan_.parents.size()));
  if (!measured.merged) return copy_base(tensor, begin, end, out, scratch);
  const int64_t cols = tensor.base().cols();
  const auto n = static_cast<size_t>((end - begin) * cols);
  const bool sums =
      measured.merge.method == MergeMethod::kLinear || measured.merge.method == MergeMethod::kSlerp;
  std::vector<const float*> parents(tensor.parents.size(), nullptr);
  for (size_t p = 0; p < parents.size(); ++p) {
    // Sums of differences need the base whatever its coefficient is.
    if (measured.merge.lambda[p] == 0 && (sums || p > 0)) continue;
    std::vector<float>& values = scratch.parents[p];
    values.resize(n);
    tensor.parents[p]->widen(begin, end, values.data());
    if (!all_finite(values.data(), n)) {
      return not_finite(plan_, tensor, p, begin, values.data(), n);
    }
    parents[p] = values.data();
  }
  scratch.sums.resize(n);
  merge_elements(measured.merge, parents, static_cast<uint64_t>(begin * cols), n,
                 scratch.sums.data());
  if (round_elements(scratch.sums.data(), n, tensor.dtype, out)) return {};
  return {Code::kFailedPrecondition,
          fmt::format("tensor {}: the result is beyond the range of {} (expected finite numbers)",
                      quote(tensor.traits.name), dtype_name(tensor.dtype)),
          "Choose a wider output.dtype, or smaller coefficients."};
}

}  // namespace chimera
