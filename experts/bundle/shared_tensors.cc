#include "experts/bundle/shared_tensors.h"

#include <fmt/format.h>

#include <map>
#include <string_view>

#include "base/quote.h"
#include "experts/assembly/misfits.h"
#include "experts/module/tensors.h"

namespace chimera {
namespace {

constexpr std::string_view kDeltaA = ".delta_a";
constexpr std::string_view kDeltaB = ".delta_b";

/// The three things that a file may have of one tensor of the backbone.
struct Found {
  const TensorView* full = nullptr;
  const TensorView* a = nullptr;
  const TensorView* b = nullptr;
};
using ByName = std::map<std::string, Found, std::less<>>;

ByName by_name(const SafetensorsFile& file) {
  ByName found;
  for (const TensorView& tensor : file.tensors()) {
    std::string name = tensor.name;
    const TensorView* Found::*place = &Found::full;
    if (name.ends_with(kDeltaA)) place = &Found::a;
    if (name.ends_with(kDeltaB)) place = &Found::b;
    if (place != &Found::full) name.resize(name.size() - kDeltaA.size());
    found[std::move(name)].*place = &tensor;
  }
  return found;
}

/// Compares what a file has with what the backbone has.
class Comparison {
 public:
  explicit Comparison(TensorDepth depth) : depth_(depth) {}

  void take(const NeededTensor& needed, const Found& found) {
    const std::string name = quote(needed.name);
    if (found.full != nullptr && (found.a != nullptr || found.b != nullptr)) {
      return misfits_.add(name + ": found both the tensor and a change of it (expected one)");
    }
    if (found.full != nullptr) {
      check(*found.full, needed.shape);
      return changes_.push_back({needed, *found.full, {}, {}});
    }
    if (needed.shape.size() != 2) {
      return misfits_.add(name + ": found a low-rank change of a vector (expected the tensor)");
    }
    if (found.a == nullptr || found.b == nullptr) {
      return misfits_.add(fmt::format("{}: found {} alone (expected {} as well)", name,
                                      found.a != nullptr ? "delta_a" : "delta_b",
                                      found.a != nullptr ? "delta_b" : "delta_a"));
    }
    const int64_t rank = found.a->shape.empty() ? 0 : found.a->shape.front();
    if (rank < 1 || rank > kMaxSharedRank) {
      return misfits_.add(
          fmt::format("{}.delta_a: found shape {} (expected [r, {}], r from 1 to {})", name,
                      shape_string(found.a->shape), needed.shape[1], kMaxSharedRank));
    }
    check(*found.a, {rank, needed.shape[1]});
    check(*found.b, {needed.shape[0], rank});
    changes_.push_back({needed, {}, *found.a, *found.b});
  }
  void unknown(const std::string& name) {
    misfits_.add(quote(name) +
                 ": found a tensor that the backbone's forward pass has no place for (expected "
                 "attention, norms, embedding, head, dense or shared feed-forwards)");
  }

  Result<std::vector<SharedChange>> result(const std::string& label) {
    if (!misfits_.empty()) {
      return misfits_.status(Code::kFailedPrecondition, label + ": shared tensors",
                             "Every tensor of the shared file must fit one of the backbone.");
    }
    if (!bad_.ok()) return bad_.with_context(label);
    if (changes_.empty()) {
      return Status(Code::kFailedPrecondition,
                    label + ": shared tensors: found none (expected one or more)",
                    "A module of experts alone is of kind weights.");
    }
    return std::move(changes_);
  }

 private:
  void check(const TensorView& tensor, const std::vector<int64_t>& shape) {
    if (!is_plain(tensor.dtype)) {
      misfits_.add(fmt::format("{}: found dtype {} (expected F32, F16 or BF16)", quote(tensor.name),
                               dtype_name(tensor.dtype)));
    }
    if (tensor.shape != shape) {
      misfits_.add(fmt::format("{}: found shape {} (expected {})", quote(tensor.name),
                               shape_string(tensor.shape), shape_string(shape)));
    } else if (depth_ == TensorDepth::kContent && bad_.ok()) {
      bad_ = check_finite(tensor);
    }
  }

  const TensorDepth depth_;
  Misfits misfits_;
  Status bad_;
  std::vector<SharedChange> changes_;
};

}  // namespace

Result<std::vector<SharedChange>> sort_shared_tensors(const SafetensorsFile& file,
                                                      const ModelConfig& config, TensorDepth depth,
                                                      const std::string& label) {
  ByName found = by_name(file);
  Comparison comparison(depth);
  const auto walk = [&](const std::vector<NeededTensor>& tensors) {
    for (const NeededTensor& needed : tensors) {
      const auto at = found.find(needed.name);
      if (at == found.end()) continue;
      comparison.take(needed, at->second);
      found.erase(at);
    }
  };
  walk(needed_model_tensors(config));
  for (int64_t l = 0; l < config.num_layers; ++l) walk(needed_layer_tensors(config, l));
  for (const auto& [name, tensors] : found) comparison.unknown(name);
  return comparison.result(label);
}

}  // namespace chimera
