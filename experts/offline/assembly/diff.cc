// diff_parents: the sums behind the report, and the spectrum.
#include <fmt/format.h>

#include <Eigen/Dense>
#include <algorithm>
#include <array>
#include <cmath>
#include <map>

#include "base/quote.h"
#include "base/threads/thread_pool.h"
#include "experts/assembly/assembler.h"
#include "experts/assembly/misfits.h"
#include "experts/offline/assembly/diff_report.h"

namespace chimera {
namespace {

// A Gram matrix of this side takes 32 MiB, and the work grows with its cube; a tensor whose smaller
// side is larger gets no spectrum.
constexpr int64_t kMostSide = 2048;

struct Sums {
  double difference = 0, aa = 0, bb = 0, ab = 0;
  uint64_t changed = 0;

  void add(const Sums& other) {
    difference += other.difference;
    aa += other.aa;
    bb += other.bb;
    ab += other.ab;
    changed += other.changed;
  }
};

struct Pair {
  const TensorTraits* traits;
  const TensorData* a;
  const TensorData* b;
};

Sums sums_of(const Pair& pair, ThreadPool& pool) {
  const int64_t rows = pair.a->rows(), step = chunk_rows(*pair.a);
  const auto cols = static_cast<size_t>(pair.a->cols());
  const int64_t chunks = (rows + step - 1) / step;
  std::vector<Sums> parts(static_cast<size_t>(chunks));
  pool.parallel_for(chunks, 1, [&](int64_t begin, int64_t end) {
    std::vector<float> x(static_cast<size_t>(step) * cols), y(x.size());
    for (int64_t chunk = begin; chunk < end; ++chunk) {
      const int64_t first = chunk * step, last = std::min(rows, first + step);
      pair.a->widen(first, last, x.data());
      pair.b->widen(first, last, y.data());
      Sums& sum = parts[static_cast<size_t>(chunk)];
      for (size_t i = 0; i < static_cast<size_t>(last - first) * cols; ++i) {
        const double u = x[i], v = y[i];
        sum.difference += (v - u) * (v - u);
        sum.aa += u * u;
        sum.bb += v * v;
        sum.ab += u * v;
        sum.changed += x[i] != y[i] ? 1 : 0;
      }
      pair.a->release(first, last);
      pair.b->release(first, last);
    }
  });
  Sums all;
  for (const Sums& part : parts) all.add(part);
  return all;
}

/// Eigenvalues of ΔW ΔWᵀ (or ΔWᵀ ΔW, whichever is smaller), which are the squared singular values.
void add_spectrum(const Pair& pair, int64_t keep, DiffGroup& group) {
  const int64_t rows = pair.a->rows(), cols = pair.a->cols();
  if (keep == 0 || std::min(rows, cols) < 2 || std::min(rows, cols) > kMostSide) return;
  using Dense = Eigen::Matrix<float, Eigen::Dynamic, Eigen::Dynamic, Eigen::RowMajor>;
  Dense x(rows, cols), y(rows, cols);
  pair.a->widen(0, rows, x.data());
  pair.b->widen(0, rows, y.data());
  const Eigen::MatrixXd delta = y.cast<double>() - x.cast<double>();
  const Eigen::MatrixXd gram = rows <= cols ? Eigen::MatrixXd(delta * delta.transpose())
                                            : Eigen::MatrixXd(delta.transpose() * delta);
  const Eigen::SelfAdjointEigenSolver<Eigen::MatrixXd> solver(gram, Eigen::EigenvaluesOnly);
  const Eigen::VectorXd squares = solver.eigenvalues().cwiseMax(0.0).reverse();
  const double all = squares.sum();
  if (!(all > 0)) return;
  double entropy = 0;
  for (const double square : squares) {
    if (square > 0) entropy -= square / all * std::log(square / all);
  }
  group.effective_rank = std::exp(entropy);
  for (int64_t i = 0; i < std::min<int64_t>(keep, squares.size()); ++i) {
    group.spectrum.push_back(std::sqrt(squares[i] / all));
  }
}

/// The narrowest set a tensor is in.
std::string set_of(const TensorTraits& traits) {
  for (const TensorSet set :
       {TensorSet::kNorms, TensorSet::kGate, TensorSet::kRoutedExperts, TensorSet::kSharedExperts,
        TensorSet::kAttention, TensorSet::kDense, TensorSet::kEmbeddings}) {
    if (traits.in(set)) return kTensorSetNames.text(set);
  }
  return "other";
}

Result<std::vector<Pair>> match(const Parent& a, const Parent& b) {
  std::vector<Pair> pairs;
  Misfits misfits;
  for (const std::string& name : a.order()) {
    const ParentTensor& own = *a.find(name);
    const ParentTensor* other = b.find(name);
    if (other == nullptr) {
      misfits.add(fmt::format("{}: lacks tensor {}", b.path(), quote(name)));
    } else if (other->data.shape() != own.data.shape()) {
      misfits.add(fmt::format("{}: tensor {} has shape {} (expected {})", b.path(), quote(name),
                              shape_string(other->data.shape()), shape_string(own.data.shape())));
    } else if (!own.data.opaque() && !other->data.opaque()) {
      pairs.push_back({&own.traits, &own.data, &other->data});
    }
  }
  for (const auto& [name, tensor] : b.tensors()) {
    if (a.find(name) == nullptr)
      misfits.add(fmt::format("{}: lacks tensor {}", a.path(), quote(name)));
  }
  if (misfits.empty()) return pairs;
  return misfits.status(Code::kFailedPrecondition, "the two do not fit together", "");
}

}  // namespace

Result<std::vector<DiffGroup>> diff_parents(const std::string& a, const std::string& b,
                                            const DiffOptions& options) {
  const Result<Parent> first = Parent::open(a);
  if (!first.ok()) return first.status();
  const Result<Parent> second = Parent::open(b);
  if (!second.ok()) return second.status();
  const Result<std::vector<Pair>> pairs = match(*first, *second);
  if (!pairs.ok()) return pairs.status();
  ThreadPool pool(options.threads);
  std::map<std::pair<int64_t, std::string>, std::vector<const Pair*>> sorted;
  for (const Pair& pair : *pairs)
    sorted[{pair.traits->layer, set_of(*pair.traits)}].push_back(&pair);
  std::vector<DiffGroup> groups;
  for (const auto& [key, members] : sorted) {
    DiffGroup group;
    group.layer = key.first;
    group.set = key.second;
    group.tensors = members.size();
    Sums all;
    const Pair* farthest = nullptr;
    for (const Pair* pair : members) {
      const Sums sums = sums_of(*pair, pool);
      const auto n = static_cast<double>(pair->a->elements());
      const double rms = n == 0 ? 0 : std::sqrt(sums.difference / n);
      if (farthest == nullptr || rms > group.largest) {
        group.largest = rms;
        group.largest_name = pair->traits->name;
        farthest = pair;
      }
      group.elements += static_cast<uint64_t>(pair->a->elements());
      all.add(sums);
    }
    if (group.elements > 0) {
      group.rms = std::sqrt(all.difference / static_cast<double>(group.elements));
      group.changed = static_cast<double>(all.changed) / static_cast<double>(group.elements);
    }
    const double norm = std::sqrt(all.aa) * std::sqrt(all.bb);
    if (norm > 0) group.cosine = all.ab / norm;
    if (group.largest > 0) add_spectrum(*farthest, options.spectrum, group);
    groups.push_back(std::move(group));
  }
  return groups;
}

}  // namespace chimera
