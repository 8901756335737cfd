#include "experts/lora/magnitude.h"

#include <fmt/format.h>

#include <cmath>
#include <cstddef>
#include <limits>

#include "base/quote.h"
#include "base/threads/background.h"
#include "compute/tensor/convert.h"
#include "compute/tensor/pack.h"

namespace chimera {
namespace {

/// All of a stored matrix, widened.
Result<std::vector<float>> numbers_of(const TensorView& tensor) {
  const Result<Matrix> matrix =
      to_matrix(tensor, tensor.shape[0], tensor.shape[1], Precision::kF32);
  if (!matrix.ok()) return matrix.status();
  std::vector<float> out(static_cast<size_t>(matrix->rows * matrix->cols));
  for (int64_t row = 0; row < matrix->rows; ++row)
    widen_row(*matrix, row, out.data() + row * matrix->cols);
  return out;
}

/// row += s B[n] A.
void add_change(const float* b, const float* a, int64_t ranks, int64_t inputs, float scale,
                float* row) {
  for (int64_t k = 0; k < ranks; ++k) {
    const float factor = scale * b[k];
    const float* const from = a + k * inputs;
    for (int64_t i = 0; i < inputs; ++i) row[i] += factor * from[i];
  }
}

}  // namespace

Result<std::shared_ptr<const std::vector<float>>> output_factors(const StoredChange& change,
                                                                 const BaseWeights& weights) {
  const AdapterTarget& at = change.target;
  const Result<std::vector<float>> a = numbers_of(change.a);
  if (!a.ok()) return a.status();
  const Result<std::vector<float>> b = numbers_of(change.b);
  if (!b.ok()) return b.status();
  Result<std::vector<float>> factors = to_f32(*change.magnitude, at.outputs);
  if (!factors.ok()) return factors.status();
  const auto held = weights.hold(at);
  if (!held.ok()) return held.status().with_context(quote(change.magnitude->name, 200));
  const int64_t ranks = change.a.shape[0];
  std::vector<float> row(static_cast<size_t>(at.inputs));
  for (int64_t n = 0; n < at.outputs; ++n) {
    if (!weights.read_row(at, n, row.data())) {
      return Status(Code::kFailedPrecondition,
                    fmt::format("{}: the weight that it changes is not kept in memory (expected "
                                "one of the checkpoint's, for its norms)",
                                quote(change.magnitude->name, 200)));
    }
    add_change(b->data() + n * ranks, a->data(), ranks, at.inputs, static_cast<float>(change.scale),
               row.data());
    double squares = 0.0;
    for (const float value : row) squares += static_cast<double>(value) * value;
    if (!(squares > 0.0)) {
      return Status(Code::kFailedPrecondition,
                    fmt::format("{}: row {} of the changed weight is all zeros (expected a length)",
                                quote(change.magnitude->name, 200), n));
    }
    float& factor = (*factors)[static_cast<size_t>(n)];
    const double ratio = static_cast<double>(factor) / std::sqrt(squares);
    if (!std::isfinite(squares) || !(std::abs(ratio) <= std::numeric_limits<float>::max())) {
      return Status(Code::kFailedPrecondition,
                    fmt::format("{}: row {}: found {} for a row of length {} (expected a ratio "
                                "that F32 holds)",
                                quote(change.magnitude->name, 200), n, factor, std::sqrt(squares)));
    }
    factor = static_cast<float>(ratio);
    give_way();
  }
  return std::make_shared<const std::vector<float>>(std::move(*factors));
}

}  // namespace chimera
