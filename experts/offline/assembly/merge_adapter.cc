#include "experts/offline/assembly/merge_adapter.h"

#include <fmt/format.h>

#include <algorithm>
#include <atomic>
#include <cmath>
#include <cstring>
#include <map>
#include <vector>

#include "backbone/checkpoint/fingerprint.h"
#include "backbone/families/needed_tensors.h"
#include "base/io/env.h"
#include "base/json/writer.h"
#include "base/quote.h"
#include "base/threads/thread_pool.h"
#include "compute/tensor/convert.h"
#include "compute/tensor/memory.h"
#include "experts/assembly/arithmetic.h"
#include "experts/assembly/misfits.h"
#include "experts/kinds/lora.h"
#include "experts/offline/cut_module.h"
#include "experts/offline/cut_output.h"

namespace chimera {
namespace {

/// A change, and the weight that it changes: elements of `tensor`, which is a tensor of the
/// checkpoint or the slice of a stack of experts.
struct PlacedChange {
  const StoredChange* change;
  TensorView tensor;
  Strides at;
};

constexpr const char* kConvertHint =
    "`chimera module convert` writes it with plain numbers. Where that changes attention, an "
    "adapter's module.yaml no longer fits: merge its directory without one, or seal it again.";

bool is_plain(const TensorView& tensor) {
  return tensor.source == nullptr && (tensor.dtype == DType::kF32 || tensor.dtype == DType::kF16 ||
                                      tensor.dtype == DType::kBF16);
}

float widened(const std::byte* from, DType dtype) {
  if (dtype == DType::kF32) {
    float value = 0.0f;
    std::memcpy(&value, from, sizeof(value));
    return value;
  }
  uint16_t bits = 0;
  std::memcpy(&bits, from, sizeof(bits));
  return dtype == DType::kF16 ? f16_to_f32(bits) : bf16_to_f32(bits);
}

/// Finds the weights of all changes; those that cannot take one are named.
class WeightFinder {
 public:
  explicit WeightFinder(const CutSource& source) : source_(source) {
    for (int64_t layer = 0; layer < source.config.num_layers; ++layer) {
      for (const NeededTensor& tensor : needed_layer_tensors(source.config, layer))
        names_[{layer, tensor.role}] = tensor.name;
    }
  }

  Result<std::vector<PlacedChange>> find(const std::vector<StoredChange>& changes) const {
    std::vector<PlacedChange> out;
    Misfits misfits;
    for (const StoredChange& change : changes) {
      PlacedChange placed{&change, {}, {}};
      bool plain = true;
      if (change.target.expert < 0) {
        // Whether it is there was checked with the whole backbone.
        placed.tensor = *source_.checkpoint.find(name_of(change.target));
        placed.at = whole_part(placed.tensor).at;
      } else {
        const StoredProjection& stored =
            source_.layers.at(change.target.layer)
                .experts[static_cast<size_t>(change.target.expert)][change.target.projection];
        plain = stored.encoding == Encoding::kPlain;
        placed.tensor = stored.weight.tensor;
        placed.at = stored.weight.at;
      }
      if (plain && is_plain(placed.tensor)) {
        out.push_back(std::move(placed));
      } else {
        misfits.add(fmt::format("found {} as {} (expected F32, F16 or BF16)",
                                quote(placed.tensor.name, 200), dtype_name(placed.tensor.dtype)));
      }
    }
    if (misfits.empty()) return out;
    return misfits.status(Code::kUnimplemented, source_.checkpoint.dir(), kConvertHint);
  }

  /// Of a weight of the backbone's own.
  const std::string& name_of(const AdapterTarget& target) const {
    return names_.at({target.layer, target.role});
  }

 private:
  const CutSource& source_;
  std::map<std::pair<int64_t, TensorRole>, std::string> names_;
};

/// DoRA (experts/lora/magnitude.h) of one row. One of zeros has no direction: it becomes NaN.
void set_length(std::vector<double>& row, double length) {
  double squares = 0.0;
  for (const double value : row) squares += value * value;
  const double factor = length / std::sqrt(squares);
  for (double& value : row) value *= factor;
}

/// Adds a change to the weight whose elements stand at `at` from `weights` on, in `dtype`; `name`
/// is that of its tensor.
Status add_change(const StoredChange& change, const std::string& name, const Strides& at,
                  DType dtype, std::byte* weights, ThreadPool& pool) {
  const AdapterTarget& target = change.target;
  const int64_t rank = change.a.shape[0];
  const auto a = matrix_to_f32(change.a, rank, target.inputs);
  if (!a.ok()) return a.status();
  const auto b = matrix_to_f32(change.b, target.outputs, rank);
  if (!b.ok()) return b.status();
  std::vector<float> lengths;  // DoRA: of the changed rows
  if (change.magnitude) {
    Result<std::vector<float>> read = to_f32(*change.magnitude, target.outputs);
    if (!read.ok()) return read.status();
    lengths = std::move(*read);
  }
  const auto cols = static_cast<size_t>(target.inputs);
  const size_t size = unit_bytes(dtype);
  const double scale = change.scale;
  std::atomic<bool> finite = true, fits = true;
  const int64_t grain = std::max<int64_t>(1, (int64_t{1} << 16) / target.inputs);
  pool.parallel_for(target.outputs, grain, [&](int64_t begin, int64_t end) {
    std::vector<double> sums(cols);
    std::vector<std::byte> rounded(cols * size);
    for (int64_t n = begin; n < end; ++n) {
      std::fill(sums.begin(), sums.end(), 0.0);
      for (int64_t k = 0; k < rank; ++k) {
        const auto factor = static_cast<double>((*b)[static_cast<size_t>(n * rank + k)]);
        const float* from = a->data() + k * target.inputs;
        for (size_t i = 0; i < cols; ++i) sums[i] += factor * static_cast<double>(from[i]);
      }
      std::byte* const row = weights + static_cast<size_t>(at.offset + n * at.row_step) * size;
      const size_t step = static_cast<size_t>(at.col_step) * size;
      for (size_t i = 0; i < cols; ++i) {
        const float base = widened(row + i * step, dtype);
        if (!std::isfinite(base)) finite = false;
        sums[i] = static_cast<double>(base) + scale * sums[i];
      }
      if (!lengths.empty()) set_length(sums, lengths[static_cast<size_t>(n)]);
      if (!round_elements(sums.data(), cols, dtype, rounded.data())) fits = false;
      for (size_t i = 0; i < cols; ++i)
        std::memcpy(row + i * step, rounded.data() + i * size, size);
    }
  });
  if (!finite) {
    return {Code::kDataCorrupt, fmt::format("{}: found a number that is not finite (expected "
                                            "finite numbers in the backbone)",
                                            quote(name, 200))};
  }
  if (fits) return {};
  return {Code::kFailedPrecondition,
          fmt::format("{}: found a sum beyond the range of {} (expected finite numbers)",
                      quote(change.b.name, 200), dtype_name(dtype))};
}

class AdapterMerge {
 public:
  AdapterMerge(const MergeOptions& options, CutSource& source, const LoraPayload& payload)
      : options_(options), source_(source), payload_(payload), pool_(options.threads) {}

  Result<Json> run() {
    const WeightFinder finder(source_);
    if (!options_.module.empty()) CHIMERA_RETURN_IF_ERROR(check_module(finder));
    Result<std::vector<PlacedChange>> changes = finder.find(payload_.changes);
    if (!changes.ok()) return changes.status();
    changes_ = std::move(*changes);
    Result<OutputDirectory> out = OutputDirectory::create(options_.out);
    if (!out.ok()) return out.status();
    CHIMERA_RETURN_IF_ERROR(options_.module.empty() ? write_checkpoint(out->partial())
                                                    : write_module(out->partial()));
    CHIMERA_RETURN_IF_ERROR(out->commit());
    Json report;
    report[options_.module.empty() ? "checkpoint" : "module"] = options_.out;
    report["adapter"] = payload_.manifest.name;
    report["digest"] = payload_.manifest.digest;
    report["changed"] = changes_.size();
    return report;
  }

 private:
  Status check_module(const WeightFinder& finder) const {
    if (!is_module_name(options_.module)) {
      return {Code::kInvalidArgument,
              fmt::format("module name {} (expected 1 to 63 of a-z, 0-9, _ and -, first a letter "
                          "or digit; not backbone or base)",
                          quote(options_.module))};
    }
    Misfits misfits;
    for (const StoredChange& change : payload_.changes) {
      if (change.target.expert < 0)
        misfits.add(fmt::format("found a change of {} (expected of experts alone)",
                                quote(finder.name_of(change.target), 200)));
    }
    if (misfits.empty()) return {};
    return misfits.status(Code::kFailedPrecondition, "module " + payload_.manifest.name,
                          "A module of kind weights holds nothing else: without --module the "
                          "whole checkpoint is written.");
  }

  Status write_checkpoint(const std::string& dir) {
    std::map<std::string, std::vector<const PlacedChange*>> by_tensor;
    for (const PlacedChange& placed : changes_) by_tensor[placed.tensor.name].push_back(&placed);
    std::vector<TensorView> planned;
    Misfits misfits;
    for (const std::string& name : source_.checkpoint.names()) {
      planned.push_back(*source_.checkpoint.find(name));
      const DType dtype = planned.back().dtype;
      if (planned.back().source != nullptr || is_block_type(dtype))
        misfits.add(fmt::format("found {} as {} (expected what safetensors hold)", quote(name, 200),
                                dtype_name(dtype)));
    }
    if (!misfits.empty())
      return misfits.status(Code::kUnimplemented, source_.checkpoint.dir(), kConvertHint);
    const auto make = [&](const TensorView& tensor) -> Result<TensorView> {
      const auto found = by_tensor.find(tensor.name);
      if (found == by_tensor.end()) return tensor;
      std::byte* to = nullptr;
      TensorView merged = make_unset_tensor(tensor.name, tensor.dtype, tensor.shape, &to);
      std::memcpy(to, tensor.bytes.data(), tensor.bytes.size());
      for (const PlacedChange* placed : found->second) {
        const auto slice = placed->tensor.bytes.data() - tensor.bytes.data();
        CHIMERA_RETURN_IF_ERROR(
            add_change(*placed->change, tensor.name, placed->at, tensor.dtype, to + slice, pool_));
      }
      return merged;
    };
    CHIMERA_RETURN_IF_ERROR(write_checkpoint_tensors(dir, planned, options_.shard_bytes, make));
    CHIMERA_RETURN_IF_ERROR(write_file_durably(Env::system(), dir + "/config.json",
                                               source_.checkpoint.config_json(), 0644));
    return copy_side_files(source_.checkpoint, dir);
  }

  Status write_module(const std::string& dir) {
    Result<std::string> fingerprint = backbone_fingerprint(source_.checkpoint, "");
    if (!fingerprint.ok()) return fingerprint.status();
    ModuleCut cut;
    cut.name = options_.module;
    cut.attach = Attach::kReplace;
    cut.fingerprint = std::move(*fingerprint);
    cut.license = options_.license;
    cut.description = fmt::format("Experts of a {} with the adapter {} merged into them",
                                  source_.config.model_type, payload_.manifest.name);
    Json parent = {{"adapter", payload_.manifest.name},
                   {"version", payload_.manifest.version},
                   {"digest", payload_.manifest.digest}};
    if (!payload_.manifest.license.empty()) parent["license"] = payload_.manifest.license;
    cut.parents = {write_json(parent)};
    for (const PlacedChange& placed : changes_) {
      const AdapterTarget& target = placed.change->target;
      StoredProjection& stored =
          source_.layers.at(target.layer)
              .experts[static_cast<size_t>(target.expert)][target.projection];
      const TensorView from = dense(stored.weight, "");
      std::byte* to = nullptr;
      const TensorView merged = make_unset_tensor("", from.dtype, from.shape, &to);
      std::memcpy(to, from.bytes.data(), from.bytes.size());
      stored.weight = whole_part(merged);
      CHIMERA_RETURN_IF_ERROR(add_change(*placed.change, placed.tensor.name, stored.weight.at,
                                         merged.dtype, to, pool_));
      std::vector<int64_t>& slots = cut.slots[target.layer];
      if (std::find(slots.begin(), slots.end(), target.expert) == slots.end())
        slots.push_back(target.expert);
    }
    for (auto& [layer, slots] : cut.slots) std::sort(slots.begin(), slots.end());
    return write_cut_module(dir, cut, source_);
  }

  const MergeOptions& options_;
  CutSource& source_;
  const LoraPayload& payload_;
  ThreadPool pool_;
  std::vector<PlacedChange> changes_;
};

}  // namespace

Result<Json> merge_adapter(const MergeOptions& options) {
  const Result<Checkpoint> checkpoint = Checkpoint::open(options.backbone, Residency::kMapped);
  if (!checkpoint.ok()) return checkpoint.status();
  Result<CutSource> source = CutSource::read(*checkpoint);
  if (!source.ok()) return source.status();
  const Result<std::string> fingerprint = backbone_fingerprint(*checkpoint, "");
  if (!fingerprint.ok()) return fingerprint.status();
  const Result<LoraPayload> payload =
      open_lora_payload(options.adapter, source->config, *fingerprint);
  if (!payload.ok()) return payload.status();
  return AdapterMerge(options, *source, *payload).run();
}

}  // namespace chimera
