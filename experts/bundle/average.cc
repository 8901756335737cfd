#include "experts/bundle/average.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <map>
#include <memory>
#include <new>
#include <optional>
#include <utility>

#include "base/quote.h"
#include "base/threads/background.h"
#include "base/threads/progress.h"
#include "compute/tensor/tensor_source.h"
#include "experts/assembly/arithmetic.h"
#include "experts/assembly/tensor_data.h"

namespace chimera {
namespace {

/// What one bundle adds to the average of a tensor; `change` null: the checkpoint's share.
struct Term {
  double share = 0.0;
  const SharedChange* change = nullptr;
};

// Numbers that a thread makes between looks at whether it is to give way or to stop: some 100 us of
// whole tensors.
constexpr int64_t kPieceElements = 1 << 15;

/// Rows of such a piece; each rank of a change is another pass over them.
int64_t piece_rows(int64_t cols, int64_t rank) {
  return std::max<int64_t>(1, kPieceElements / std::max<int64_t>(1, cols) / (1 + rank / 4));
}

/// Rows x columns; a vector is one row.
std::pair<int64_t, int64_t> matrix_shape(const NeededTensor& needed) {
  return {needed.shape.size() == 2 ? needed.shape[0] : 1, needed.shape.back()};
}

/// What one thread works in.
struct Scratch {
  std::vector<float> row, b;       // [cols], [rank] as F32, which is exact
  std::vector<double> value, sum;  // [cols]
};

/// The average of one tensor, row by row.
class Average {
 public:
  Average(const NeededTensor& needed, const TensorView& base, std::span<const Term> terms)
      : rows_(matrix_shape(needed).first), cols_(matrix_shape(needed).second), base_(base) {
    for (const Term& term : terms) {
      terms_.push_back({term.share, {}, {}, 0, {}});
      if (term.change == nullptr) continue;
      Part& part = terms_.back();
      if (term.change->full) {
        part.full.emplace(*term.change->full);
        continue;
      }
      part.rank = term.change->a->shape[0];
      rank_ += part.rank;
      part.b.emplace(*term.change->b);
      part.a.resize(static_cast<size_t>(part.rank * cols_));
      TensorData(*term.change->a).widen(0, part.rank, part.a.data());
    }
  }

  /// data_corrupt without a message: a number that does not fit; cancelled: given up.
  Code write(DType dtype, std::byte* to, ThreadPool& pool) const {
    const int64_t step = piece_rows(cols_, rank_);
    const int64_t pieces = (rows_ + step - 1) / step;
    const int64_t workers = std::min<int64_t>(pool.threads(), pieces);
    std::vector<Scratch> scratch(static_cast<size_t>(workers));
    for (Scratch& one : scratch) reserve(one);
    const BackgroundHelper background;
    const Progress* const progress = current_progress();
    std::atomic<int64_t> next{0};
    std::atomic<bool> fits{true}, given_up{false};
    pool.parallel_for(workers, 1, [&](int64_t worker, int64_t) {
      const BackgroundScope scope = background.scope();
      for (int64_t piece = next++; piece < pieces && !given_up; piece = next++) {
        const int64_t end = std::min(rows_, (piece + 1) * step);
        if (!write_rows(piece * step, end, dtype, to, scratch[static_cast<size_t>(worker)]))
          fits = false;
        if (progress != nullptr && progress->given_up()) given_up = true;
        give_way();
      }
    });
    if (given_up) return Code::kCancelled;
    return fits ? Code::kOk : Code::kDataCorrupt;
  }

 private:
  struct Part {
    double share = 0.0;
    std::optional<TensorData> full;
    std::vector<float> a;  // [rank, cols]
    int64_t rank = 0;
    std::optional<TensorData> b;
  };

  void reserve(Scratch& scratch) const {
    const auto cols = static_cast<size_t>(cols_);
    scratch.row.resize(cols);
    scratch.value.resize(cols);
    scratch.sum.resize(cols);
    scratch.b.resize(static_cast<size_t>(rank_));
  }

  bool write_rows(int64_t begin, int64_t end, DType dtype, std::byte* to, Scratch& scratch) const {
    const auto row_bytes = static_cast<size_t>(cols_ * dtype_bits(dtype) / 8);
    bool fits = true;
    for (int64_t r = begin; r < end; ++r) {
      for (size_t i = 0; i < terms_.size(); ++i) add_row(r, i, scratch);
      fits = round_elements(scratch.sum.data(), scratch.sum.size(), dtype,
                            to + static_cast<size_t>(r) * row_bytes) &&
             fits;
    }
    return fits;
  }

  void add_row(int64_t r, size_t i, Scratch& scratch) const {
    const Part& part = terms_[i];
    std::vector<double>& value = scratch.value;
    (part.full ? *part.full : base_).widen(r, r + 1, scratch.row.data());
    if (part.rank > 0) {
      std::fill(value.begin(), value.end(), 0.0);
      part.b->widen(r, r + 1, scratch.b.data());
    }
    for (int64_t k = 0; k < part.rank; ++k) {
      const double b = scratch.b[static_cast<size_t>(k)];
      const float* a = part.a.data() + k * cols_;
      for (size_t c = 0; c < value.size(); ++c) value[c] += b * a[c];
    }
    for (size_t c = 0; c < value.size(); ++c) {
      const double whole = part.rank > 0 ? scratch.row[c] + value[c] : scratch.row[c];
      scratch.sum[c] = i == 0 ? part.share * whole : scratch.sum[c] + part.share * whole;
    }
  }

  const int64_t rows_, cols_;
  const TensorData base_;
  std::vector<Part> terms_;
  int64_t rank_ = 0;  // of all together
};

Result<TensorView> averaged(const Checkpoint& checkpoint, const NeededTensor& needed,
                            std::span<const Term> terms, ThreadPool& pool) {
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
  const size_t bytes = base->bytes.size();
  const std::shared_ptr<std::byte[]> memory(new (std::nothrow) std::byte[bytes]);
  if (memory == nullptr) {
    return Status(Code::kResourceExhausted,
                  fmt::format("no memory for tensor {} of {} bytes", quote(needed.name), bytes));
  }
  const Code written = Average(needed, *made, terms).write(base->dtype, memory.get(), pool);
  if (written == Code::kCancelled) {
    return Status(Code::kCancelled,
                  fmt::format("tensor {}: found it given up", quote(needed.name)));
  }
  if (written != Code::kOk) {
    return Status(Code::kDataCorrupt,
                  fmt::format("tensor {}: found a number that {} does not hold (expected those of "
                              "the checkpoint's dtype)",
                              quote(needed.name), dtype_name(base->dtype)));
  }
  checkpoint.release(*base);
  return TensorView{needed.name, base->dtype, needed.shape, {memory.get(), bytes}, memory};
}

}  // namespace

uint64_t averaging_bytes(const NeededTensor& needed, DType stored, int64_t rank, int threads) {
  const auto [rows, cols] = matrix_shape(needed);
  const auto n = [](int64_t value) { return static_cast<uint64_t>(value); };
  const uint64_t base = n(rows * cols * dtype_bits(stored) / 8);  // where no file has it
  const uint64_t scratch = n(cols) * (sizeof(float) + 2 * sizeof(double)) + n(rank) * sizeof(float);
  return base + n(rank * cols) * sizeof(float) + n(threads) * scratch;
}

Result<std::vector<TensorView>> averaged_tensors(const Checkpoint& checkpoint,
                                                 const ModelConfig& config,
                                                 std::span<const WeightedChanges> bundles,
                                                 ThreadPool& pool) {
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
      Result<TensorView> tensor = averaged(checkpoint, needed, found->second, pool);
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
