#include "experts/offline/pack_backbone.h"

#include <fmt/format.h>

#include <cstring>
#include <functional>
#include <set>
#include <vector>

#include "backbone/checkpoint/check.h"
#include "backbone/checkpoint/checkpoint.h"
#include "backbone/checkpoint/fingerprint.h"
#include "backbone/families/needed_tensors.h"
#include "backbone/forward/weights.h"
#include "base/io/env.h"
#include "base/json/writer.h"
#include "base/quote.h"
#include "base/threads/each_parallel.h"
#include "compute/tensor/packed_tensor.h"
#include "compute/tensor/tensor_source.h"
#include "experts/kinds/weights.h"
#include "experts/module/base_tensors.h"
#include "experts/module/checkpoint_check.h"
#include "experts/module/tensors.h"
#include "experts/offline/cut_output.h"

namespace chimera {
namespace {

/// What an expert's matrix becomes when the checkpoint is loaded.
Result<Matrix> packed_projection(const StoredProjection& stored, Precision precision,
                                 BlockShape block) {
  StoredProjection projection = stored;
  Result<TensorView> made = loaded(projection.weight.tensor);
  if (!made.ok()) return made.status();
  projection.weight.tensor = std::move(*made);
  CHIMERA_RETURN_IF_ERROR(check_finite(projection, block));
  Result<ExpertWeight> weight = build_weight(projection, precision, block);
  if (!weight.ok()) return weight.status();
  if (!weight->quantised) return std::move(weight->matrix);
  return Status(Code::kFailedPrecondition,
                fmt::format("tensor {}: found scales too far apart for the packed format of MXFP4 "
                            "(expected at most 37 powers of two between those of a matrix)",
                            quote(stored.weight.tensor.name)),
                "Leave the experts as they are: --precision attention=q8,head=q8.");
}

/// A checkpoint in parts, each in memory on its own: what stands outside of the layers, and every
/// layer.
class PackedParts {
 public:
  PackedParts(const Checkpoint& checkpoint, ModelConfig config, const PrecisionPlan& precision)
      : checkpoint_(checkpoint), config_(std::move(config)), plan_(precision) {
    names_.resize(static_cast<size_t>(config_.num_layers) + 1);
    for (std::string& name : checkpoint.names()) names_[place_of(name)].push_back(std::move(name));
  }

  size_t count() const { return names_.size(); }

  /// The tensors of a part as they are to be written: packed ones first, so that each begins where
  /// the one before it was filled up to.
  Result<std::vector<TensorView>> make(size_t part) {
    jobs_.clear();
    kept_.clear();
    taken_.clear();
    CHIMERA_RETURN_IF_ERROR(part == 0 ? plan_model() : plan_layer(static_cast<int64_t>(part) - 1));
    std::vector<TensorView> out(jobs_.size());
    CHIMERA_RETURN_IF_ERROR(for_each_parallel(static_cast<int64_t>(jobs_.size()), [&](int64_t i) {
      const auto at = static_cast<size_t>(i);
      const Result<Matrix> made = jobs_[at].make();
      if (made.ok()) out[at] = packed_tensor(jobs_[at].name, *made);
      return made.status().with_context(checkpoint_.dir());
    }));
    for (TensorView& tensor : kept_) out.push_back(std::move(tensor));
    for (const std::string& name : names_[part]) {
      if (!taken_.contains(name)) out.push_back(*checkpoint_.find(name));
    }
    return out;
  }

  /// The part is written: the pages of what it was made from are not needed any more.
  void release(size_t part) const {
    for (const std::string& name : names_[part]) checkpoint_.release(*checkpoint_.find(name));
  }

 private:
  struct Job {
    std::string name;
    std::function<Result<Matrix>()> make;
  };

  size_t place_of(const std::string& name) const {
    for (int64_t layer = 0; layer < config_.num_layers; ++layer) {
      if (name.starts_with(layer_tensor(config_, layer, ""))) return static_cast<size_t>(layer) + 1;
    }
    return 0;
  }

  /// `as`: the name in the file that is written.
  void add(const NeededTensor& t, const std::string& as, Precision precision) {
    jobs_.push_back({as, [this, t, precision] {
                       return checkpoint_.matrix(t.name, t.shape[0], t.shape[1], precision);
                     }});
  }

  Status plan_model() {
    for (const NeededTensor& t : needed_model_tensors(config_)) {
      const bool tied = t.role == TensorRole::kEmbedding && config_.tie_word_embeddings;
      if (!packed_format(plan_.head) || (t.role != TensorRole::kHead && !tied)) continue;
      const std::string head = head_name(config_);
      add(t, head, plan_.head);
      take(head);  // one that stands beside a tied one is not used
    }
    return {};
  }

  Status plan_layer(int64_t layer) {
    for (const NeededTensor& t : needed_layer_tensors(config_, layer)) {
      const Precision precision = kept_precision(t.role, plan_);
      if (t.shape.size() != 2 || !packed_format(precision)) continue;
      add(t, t.name, precision);
      take(t.name);
    }
    if (!is_moe_layer(config_, layer) || !packed_format(plan_.experts)) return {};
    const Result<BaseLayer> base = read_base_layer(checkpoint_, config_, layer);
    if (!base.ok()) return base.status();
    for (size_t e = 0; e < base->experts.size(); ++e) {
      for (size_t p = 0; p < kProjections.size(); ++p)
        plan_projection(layer, static_cast<int64_t>(e), p, base->experts[e][p]);
    }
    return {};
  }

  void plan_projection(int64_t layer, int64_t e, size_t p, const StoredProjection& stored) {
    const auto name = [&](Part part) {
      return single_tensor_name(config_, layer, e, p, Encoding::kPlain, part);
    };
    jobs_.push_back({name(kWeightPart), [this, stored] {
                       return packed_projection(stored, plan_.experts, checkpoint_.block_shape());
                     }});
    if (stored.bias) kept_.push_back(dense(*stored.bias, name(kBiasPart)));
    for (const Part part : {kWeightPart, kScalePart, kBiasPart}) {
      if (const StoredPart* found = part_of(stored, part)) taken_.insert(found->tensor.name);
    }
  }

  /// A matrix that is packed, with its scales if it has some.
  void take(const std::string& name) {
    taken_.insert(name);
    taken_.insert(name + "_scale_inv");
  }

  const Checkpoint& checkpoint_;
  const ModelConfig config_;
  const PrecisionPlan plan_;
  std::vector<std::vector<std::string>> names_;  // of the checkpoint's tensors, by part
  // Of the part that is made.
  std::vector<Job> jobs_;
  std::vector<TensorView> kept_;
  std::set<std::string> taken_;  // names whose tensors are not written as they are
};

/// A source, opened and checked, and what is to be made of it.
struct PackingSource {
  Checkpoint checkpoint;
  ModelConfig config;
  std::string fingerprint;

  static Result<PackingSource> open(const std::string& dir, const PrecisionPlan& precision) {
    if (same_packing(precision, PrecisionPlan())) {
      return Status(Code::kInvalidArgument,
                    fmt::format("precision: found {} (expected q8 or q4 for one class at least)",
                                precision.name()));
    }
    Result<Checkpoint> checkpoint = Checkpoint::open(dir, Residency::kMapped);
    if (!checkpoint.ok()) return checkpoint.status();
    CHIMERA_RETURN_IF_ERROR(checkpoint->check_unpacked());
    Result<ModelConfig> config = read_model_config(*checkpoint);
    if (!config.ok()) return config.status();
    CHIMERA_RETURN_IF_ERROR(check_checkpoint_tensors(*checkpoint, *config));
    Result<std::string> fingerprint = backbone_fingerprint(*checkpoint, "");
    if (!fingerprint.ok()) return fingerprint.status();
    return PackingSource{std::move(*checkpoint), std::move(*config), std::move(*fingerprint)};
  }
};

void count(const std::vector<TensorView>& tensors, PackBackboneReport* report) {
  for (const TensorView& t : tensors) {
    ++(is_packed_type(t.dtype) ? report->packed : report->kept);
    report->bytes += static_cast<uint64_t>(dense_bytes(t.dtype, t.shape).value_or(0));
  }
}

/// One file for each part, and the index.
Status write_parts(PackedParts& parts, const std::string& dir, PackBackboneReport* report) {
  Json weight_map = Json::object();
  for (size_t i = 0; i < parts.count(); ++i) {
    const auto tensors = parts.make(i);
    if (!tensors.ok()) return tensors.status();
    const std::string file = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, parts.count());
    CHIMERA_RETURN_IF_ERROR(write_safetensors(dir + "/" + file, *tensors, {{"format", "pt"}}));
    for (const TensorView& tensor : *tensors) weight_map.append(tensor.name, file);
    count(*tensors, report);
    parts.release(i);
  }
  const Json index = {{"metadata", {{"total_size", report->bytes}}},
                      {"weight_map", std::move(weight_map)}};
  return write_file_durably(Env::system(), dir + "/model.safetensors.index.json",
                            write_json(index, {.indent = 2}) + "\n", 0644);
}

Status differs(const std::string& packed, const std::string& what) {
  return {
      Code::kDataCorrupt,
      fmt::format("{}: found another {} than the source makes (expected the same)", packed, what),
      "It was changed, packed by another version, or packed from another checkpoint."};
}

Status compare_tensor(const Checkpoint& packed, const TensorView& expected) {
  const TensorView* stored = packed.find(expected.name);
  const std::string what = "tensor " + quote(expected.name);
  if (stored == nullptr || stored->dtype != expected.dtype || stored->shape != expected.shape ||
      stored->scale != expected.scale)
    return differs(packed.dir(), what);
  const Result<TensorView> found = loaded(*stored), wanted = loaded(expected);
  if (!found.ok()) return found.status();
  if (!wanted.ok()) return wanted.status();
  const size_t size = wanted->bytes.size();
  if (found->bytes.size() == size &&
      (size == 0 || std::memcmp(found->bytes.data(), wanted->bytes.data(), size) == 0))
    return {};
  return differs(packed.dir(), what);
}

}  // namespace

Result<PackBackboneReport> pack_backbone(const PackBackboneOptions& options) {
  const auto source = PackingSource::open(options.from, options.precision);
  if (!source.ok()) return source.status();
  Result<OutputDirectory> out = OutputDirectory::create(options.out);
  if (!out.ok()) return out.status();
  const std::string& dir = out->partial();
  PackBackboneReport report;
  report.fingerprint = source->fingerprint;
  PackedParts parts(source->checkpoint, source->config, options.precision);
  CHIMERA_RETURN_IF_ERROR(write_parts(parts, dir, &report));
  if (report.packed == 0) {
    return Status(Code::kInvalidArgument,
                  fmt::format("{}: found no tensor that precision {} packs (expected one)",
                              options.from, options.precision.name()));
  }
  CHIMERA_RETURN_IF_ERROR(copy_side_files(source->checkpoint, dir));
  CHIMERA_RETURN_IF_ERROR(write_file_durably(Env::system(), dir + "/config.json",
                                             source->checkpoint.config_json(), 0644));
  const Result<Checkpoint> written = Checkpoint::open(dir, Residency::kMapped);
  if (!written.ok()) return written.status();
  CHIMERA_RETURN_IF_ERROR(check_checkpoint_tensors(*written, source->config));
  const Result<std::string> content = backbone_content(*written);
  if (!content.ok()) return content.status();
  const PackedRecord record{source->fingerprint, *content, options.precision};
  CHIMERA_RETURN_IF_ERROR(write_file_durably(Env::system(), dir + "/" + kPackedRecordName,
                                             packed_record_text(record), 0644));
  CHIMERA_RETURN_IF_ERROR(check_unchanged(source->checkpoint));
  CHIMERA_RETURN_IF_ERROR(out->commit());
  return report;
}

Result<PackBackboneReport> verify_packed_backbone(const std::string& packed_dir,
                                                  const std::string& source_dir) {
  const Result<Checkpoint> packed = Checkpoint::open(packed_dir, Residency::kMapped);
  if (!packed.ok()) return packed.status();
  if (!packed->packed()) {
    return Status(Code::kFailedPrecondition, packed_dir + ": found no " + kPackedRecordName +
                                                 " (expected a packed checkpoint)");
  }
  const auto source = PackingSource::open(source_dir, packed->packed()->precision);
  if (!source.ok()) return source.status();
  const Result<std::string> fingerprint = backbone_fingerprint(*packed, "");
  if (!fingerprint.ok()) return fingerprint.status();
  if (*fingerprint != source->fingerprint) return differs(packed_dir, "fingerprint");
  if (packed->config_json() != source->checkpoint.config_json())
    return differs(packed_dir, "config.json");
  const auto side_file = other_side_file(*packed, source->checkpoint);
  if (!side_file.ok()) return side_file.status();
  if (*side_file) return differs(packed_dir, **side_file);
  PackBackboneReport report;
  report.fingerprint = *fingerprint;
  PackedParts parts(source->checkpoint, source->config, packed->packed()->precision);
  for (size_t i = 0; i < parts.count(); ++i) {
    const auto tensors = parts.make(i);
    if (!tensors.ok()) return tensors.status();
    for (const TensorView& tensor : *tensors)
      CHIMERA_RETURN_IF_ERROR(compare_tensor(*packed, tensor));
    count(*tensors, &report);
    parts.release(i);
  }
  if (packed->names().size() != report.packed + report.kept)
    return differs(packed_dir, "number of tensors");
  CHIMERA_RETURN_IF_ERROR(check_unchanged(source->checkpoint));
  return report;
}

}  // namespace chimera
