#include "experts/bundle/source.h"

#include <fmt/format.h>

#include <utility>

#include "backbone/families/needed_tensors.h"

namespace chimera {
namespace {

/// The change time is left out: a rename or a new link moves it and leaves the contents alone.
bool same_file(const FileIdentity& a, const FileIdentity& b) {
  return a.device == b.device && a.inode == b.inode && a.size == b.size &&
         a.modified_ns == b.modified_ns;
}

}  // namespace

BackboneSource::BackboneSource(std::shared_ptr<const Backbone> backbone,
                               const Checkpoint& checkpoint)
    : backbone_(std::move(backbone)), dir_(checkpoint.dir()) {
  for (const auto& file : checkpoint.files()) files_.push_back({file->path(), file->identity()});
  const auto note = [&](const std::vector<NeededTensor>& tensors) {
    for (const NeededTensor& needed : tensors) {
      const TensorView* tensor = checkpoint.find(needed.name);
      if (tensor != nullptr) stored_.emplace(needed.name, tensor->dtype);
    }
  };
  const ModelConfig& config = backbone_->config();
  note(needed_model_tensors(config));
  for (int64_t l = 0; l < config.num_layers; ++l) note(needed_layer_tensors(config, l));
}

DType BackboneSource::stored(std::string_view name) const {
  const auto found = stored_.find(name);
  return found == stored_.end() ? DType::kF32 : found->second;
}

Result<Checkpoint> BackboneSource::open() const {
  Result<Checkpoint> checkpoint = Checkpoint::open(dir_, Residency::kMapped);
  if (!checkpoint.ok()) return checkpoint;
  const auto& files = checkpoint->files();
  bool same = files.size() == files_.size();
  for (size_t i = 0; same && i < files.size(); ++i) {
    same =
        files[i]->path() == files_[i].path && same_file(files[i]->identity(), files_[i].identity);
  }
  if (same) return checkpoint;
  return Status(Code::kFailedPrecondition,
                fmt::format("{}: found other files than the backbone was loaded from (expected "
                            "the same, for the tensors that bundles change)",
                            dir_),
                "Put them back, or restart the daemon on the new ones.");
}

}  // namespace chimera
