#include "experts/bundle/average.h"

#include <fmt/format.h>

#include <algorithm>
#include <map>
#include <memory>
#include <new>
#include <utility>

#include "base/quote.h"
#include "compute/tensor/convert.h"
#include "compute/tensor/tensor_source.h"
#include "experts/assembly/arithmetic.h"

namespace chimera {
namespace {

/// What one bundle adds to the average of a tensor; `change` null: the checkpoint's share.
struct Term {
  double share = 0.0;
  const SharedChange* change = nullptr;
};

/// The tensors of one change as F32, which is exact.
struct Widened {
  std::vector<float> full, a, b;
  int64_t rank = 0;
};

Result<Widened> widened(const SharedChange& change) {
  Widened out;
  const auto read = [](const TensorView& tensor, std::vector<float>& into) -> Status {
    TensorView flat = tensor;
    flat.shape = {tensor.elements()};
    Result<std::vector<float>> values = to_f32(flat, flat.shape[0]);
    if (!values.ok()) return values.status();
    into = std::move(*values);
    return {};
  };
  if (change.full) {
    CHIMERA_RETURN_IF_ERROR(read(*change.full, out.full));
    return out;
  }
  out.rank = change.a->shape[0];
  CHIMERA_RETURN_IF_ERROR(read(*change.a, out.a));
  CHIMERA_RETURN_IF_ERROR(read(*change.b, out.b));
  return out;
}

/// Row by row, so that only a row is there in float64.
class Average {
 public:
  Average(const NeededTensor& needed, std::span<const Term> terms)
      : rows_(needed.shape.size() == 2 ? needed.shape[0] : 1),
        cols_(needed.shape.back()),
        terms_(terms) {}

  Status read(const TensorView& base) {
    TensorView flat = base;
    flat.shape = {base.elements()};
    Result<std::vector<float>> values = to_f32(flat, flat.shape[0]);
    if (!values.ok()) return values.status();
    base_ = std::move(*values);
    for (const Term& term : terms_) {
      Result<Widened> one = term.change == nullptr ? Widened() : widened(*term.change);
      if (!one.ok()) return one.status();
      changes_.push_back(std::move(*one));
    }
    return {};
  }

  /// False: a number that does not fit.
  bool write(DType dtype, std::byte* to) {
    const auto row_bytes = static_cast<size_t>(cols_ * dtype_bits(dtype) / 8);
    value_.resize(static_cast<size_t>(cols_));
    sum_.resize(static_cast<size_t>(cols_));
    bool fits = true;
    for (int64_t r = 0; r < rows_; ++r) {
      for (size_t i = 0; i < terms_.size(); ++i) add_row(r, i);
      fits = round_elements(sum_.data(), sum_.size(), dtype,
                            to + static_cast<size_t>(r) * row_bytes) &&
             fits;
    }
    return fits;
  }

 private:
  void add_row(int64_t r, size_t i) {
    const Widened& change = changes_[i];
    const bool full = !change.full.empty();
    const float* row = (full ? change.full : base_).data() + r * cols_;
    std::fill(value_.begin(), value_.end(), 0.0);
    for (int64_t k = 0; k < change.rank; ++k) {
      const double b = change.b[static_cast<size_t>(r * change.rank + k)];
      const float* a = change.a.data() + k * cols_;
      for (size_t c = 0; c < value_.size(); ++c) value_[c] += b * a[c];
    }
    const double share = terms_[i].share;
    for (size_t c = 0; c < value_.size(); ++c) {
      const double value = change.rank > 0 ? row[c] + value_[c] : row[c];
      sum_[c] = i == 0 ? share * value : sum_[c] + share * value;
    }
  }

  const int64_t rows_, cols_;
  const std::span<const Term> terms_;
  std::vector<float> base_;
  std::vector<Widened> changes_;
  std::vector<double> value_, sum_;  // [cols]
};

Result<TensorView> averaged(const Checkpoint& checkpoint, const NeededTensor& needed,
                            std::span<const Term> terms) {
  Result<TensorView> base = checkpoint.require(needed.name, needed.shape);
  if (!base.ok()) return base;
  if (!is_plain(base->dtype)) {
    return Status(Code::kUnimplemented,
                  fmt::format("{}: tensor {}: found dtype {} (expected F32, F16 or BF16, for a "
                              "bundle to change it)",
                              checkpoint.dir(), quote(needed.name), dtype_name(base->dtype)),
                  "Bundles need a backbone whose shared tensors are not quantised.");
  }
  const auto& alone = terms.front().change;
  if (terms.size() == 1 && alone->full && alone->full->dtype == base->dtype) return *alone->full;
  Result<TensorView> made = loaded(*base);
  if (!made.ok()) return made;
  Average average(needed, terms);
  CHIMERA_RETURN_IF_ERROR(average.read(*made));
  const size_t bytes = base->bytes.size();
  const std::shared_ptr<std::byte[]> memory(new (std::nothrow) std::byte[bytes]);
  if (memory == nullptr) {
    return Status(Code::kResourceExhausted,
                  fmt::format("no memory for tensor {} of {} bytes", quote(needed.name), bytes));
  }
  if (!average.write(base->dtype, memory.get())) {
    return Status(Code::kDataCorrupt,
                  fmt::format("tensor {}: found a number that {} does not hold (expected those of "
                              "the checkpoint's dtype)",
                              quote(needed.name), dtype_name(base->dtype)));
  }
  checkpoint.release(*base);
  return TensorView{needed.name, base->dtype, needed.shape, {memory.get(), bytes}, memory};
}

}  // namespace

Result<std::vector<TensorView>> averaged_tensors(const Checkpoint& checkpoint,
                                                 const ModelConfig& config,
                                                 std::span<const WeightedChanges> bundles) {
  double total = 0.0;
  for (const WeightedChanges& bundle : bundles) total += bundle.weight;
  std::vector<Term> untouched;
  for (const WeightedChanges& bundle : bundles) untouched.push_back({bundle.weight / total});
  std::map<std::string_view, std::vector<Term>> changed;
  for (size_t i = 0; i < bundles.size(); ++i) {
    for (const SharedChange& change : bundles[i].changes)
      changed.emplace(change.needed.name, untouched).first->second[i].change = &change;
  }
  std::vector<TensorView> out;
  const auto add = [&](const std::vector<NeededTensor>& tensors) -> Status {
    for (const NeededTensor& needed : tensors) {
      const auto found = changed.find(needed.name);
      if (found == changed.end()) continue;
      Result<TensorView> tensor = averaged(checkpoint, needed, found->second);
      if (!tensor.ok()) return tensor.status();
      out.push_back(std::move(*tensor));
    }
    return {};
  };
  CHIMERA_RETURN_IF_ERROR(add(needed_model_tensors(config)));
  for (int64_t l = 0; l < config.num_layers; ++l)
    CHIMERA_RETURN_IF_ERROR(add(needed_layer_tensors(config, l)));
  return out;
}

}  // namespace chimera
