#include "experts/kinds/evictable_base.h"

#include <array>
#include <cstring>
#include <map>
#include <span>
#include <utility>
#include <vector>

#include "backbone/files/region.h"
#include "base/io/digest.h"
#include "base/threads/each_parallel.h"
#include "compute/tensor/memory.h"
#include "compute/tensor/tensor_source.h"
#include "experts/kinds/weights.h"
#include "experts/module/base_tensors.h"

namespace chimera {
namespace {

constexpr std::array kAllParts{kWeightPart, kScalePart, kBiasPart};

/// Calls `use(part)` for every part of an expert.
template <class Use>
void for_each_part(const StoredExpert& stored, const Use& use) {
  for (const StoredProjection& projection : stored) {
    for (const Part part : kAllParts) {
      if (const StoredPart* found = part_of(projection, part)) use(*found);
    }
  }
}

void add_bytes(const TensorView& tensor, Sha256* hash) {
  hash->update_field(tensor.name);
  hash->update_field(dtype_name(tensor.dtype));
  if (tensor.source != nullptr) {
    for (const TensorView& part : tensor.source->parts()) add_bytes(part, hash);
    return;
  }
  hash->update_u64(tensor.bytes.size());
  if (is_packed_type(tensor.dtype)) hash->update(std::as_bytes(std::span(&tensor.scale, 1)));
  hash->update(tensor.bytes);
}

/// Of all bytes that an expert is made from.
std::string digest_of(const StoredExpert& stored) {
  Sha256 hash;
  hash.update_field("chimera stored expert/1");
  const std::byte* last = nullptr;  // gate and up may be parts of one slice
  for_each_part(stored, [&](const StoredPart& part) {
    const std::byte* const bytes = part.tensor.bytes.data();
    if (part.tensor.source != nullptr || bytes != last) add_bytes(part.tensor, &hash);
    last = bytes;
  });
  return hash.finish();
}

/// What the files hold of an expert, used in place.
using Spans = std::vector<std::span<const std::byte>>;

Spans spans_in_place(const StoredExpert& stored, Precision p) {
  Spans spans;
  for (const StoredProjection& projection : stored) {
    if (!used_in_place(projection, p)) continue;
    for (const Part part : {kWeightPart, kScalePart}) {
      const StoredPart* const found = part_of(projection, part);
      if (found != nullptr && found->tensor.source == nullptr) spans.push_back(found->tensor.bytes);
    }
  }
  return spans;
}

/// An expert that gives the pages of its file back when it goes.
class InPlace {
 public:
  InPlace(std::shared_ptr<const Expert> expert, Spans spans)
      : expert_(std::move(expert)), spans_(std::move(spans)) {}
  ~InPlace() {
    for (const auto& span : spans_) give_back_pages(span);
  }
  InPlace(const InPlace&) = delete;
  InPlace& operator=(const InPlace&) = delete;

  static std::shared_ptr<const Expert> hold(std::shared_ptr<const Expert> expert, Spans spans) {
    if (spans.empty()) return expert;
    auto held = std::make_shared<InPlace>(std::move(expert), std::move(spans));
    return {held, held->expert_.get()};
  }

 private:
  const std::shared_ptr<const Expert> expert_;  // keeps the file's memory
  const Spans spans_;
};

/// The stored expert in memory of its own, each slice once.
StoredExpert copied(const StoredExpert& stored) {
  std::map<const std::byte*, TensorView> made;
  const auto copy = [&](StoredPart& part) {
    if (part.tensor.source != nullptr || part.tensor.bytes.empty()) return;
    TensorView& own = made[part.tensor.bytes.data()];
    if (own.owner == nullptr) {
      std::byte* bytes = nullptr;
      own = make_unset_tensor(part.tensor.name, part.tensor.dtype, part.tensor.shape, &bytes);
      own.scale = part.tensor.scale;
      std::memcpy(bytes, part.tensor.bytes.data(), part.tensor.bytes.size());
    }
    part.tensor = own;
  };
  StoredExpert out = stored;
  for (StoredProjection& projection : out) {
    copy(projection.weight);
    if (projection.scale) copy(*projection.scale);
    if (projection.bias) copy(*projection.bias);
  }
  return out;
}

class CheckpointExperts final : public ExpertSource {
 public:
  CheckpointExperts(const Checkpoint& checkpoint, ModelConfig config, Precision p)
      : dir_(checkpoint.dir()), config_(std::move(config)), precision_(p) {
    for (const auto& file : checkpoint.files()) {
      identities_.emplace(file->path(), file->identity());
      copied_ = copied_ || !file->mapped();
    }
  }

  Result<std::vector<std::string>> digests(std::span<const ExpertPlace> places) override {
    const Result<Checkpoint> checkpoint = Checkpoint::open(dir_, Residency::kMapped);
    if (!checkpoint.ok()) return checkpoint.status();
    CHIMERA_RETURN_IF_ERROR(check_same_files(*checkpoint));
    const auto stored = stored_at(*checkpoint, places);
    if (!stored.ok()) return stored.status();
    std::vector<std::string> out(places.size());
    CHIMERA_RETURN_IF_ERROR(each(out.size(), [&](size_t i) -> Status {
      out[i] = digest_of((*stored)[i]);
      release(*checkpoint, (*stored)[i]);
      return {};
    }));
    CHIMERA_RETURN_IF_ERROR(check_same_files(*checkpoint));
    return out;
  }

  Result<std::vector<std::shared_ptr<const Expert>>> read(
      std::span<const ExpertPlace> places, std::span<const std::string> digests) override {
    const Result<Checkpoint> checkpoint = Checkpoint::open(dir_, Residency::kMapped);
    if (!checkpoint.ok()) return checkpoint.status().with_context(kContext);
    const auto stored = stored_at(*checkpoint, places);
    if (!stored.ok()) return stored.status().with_context(kContext);
    std::vector<std::shared_ptr<const Expert>> out(places.size());
    const Status status = each(out.size(), [&](size_t i) {
      auto made = make(*checkpoint, places[i], (*stored)[i], digests[i]);
      if (made.ok()) out[i] = std::move(*made);
      return made.status();
    });
    if (!status.ok()) return status.with_context(kContext);
    return out;
  }

 private:
  static constexpr const char* kContext = "experts of the backbone, to be read again";

  template <class Body>
  static Status each(size_t n, const Body& body) {
    return for_each_parallel(static_cast<int64_t>(n),
                             [&](int64_t i) { return body(static_cast<size_t>(i)); });
  }

  /// That the checkpoint's files are those that the experts were made from.
  Status check_same_files(const Checkpoint& now) const {
    for (const auto& file : now.files()) {
      const auto was = identities_.find(file->path());
      const FileIdentity& is = file->identity();
      if (was != identities_.end() && was->second.device == is.device &&
          was->second.inode == is.inode && was->second.size == is.size &&
          was->second.modified_ns == is.modified_ns) {
        continue;
      }
      return {Code::kFailedPrecondition,
              file->path() +
                  ": found another file, or other contents, than the backbone was loaded "
                  "from (expected it to stay)",
              "replaced experts stay in memory; restart the daemon to load the new file"};
    }
    return {};
  }

  Result<std::vector<StoredExpert>> stored_at(const Checkpoint& checkpoint,
                                              std::span<const ExpertPlace> places) const {
    std::map<int64_t, BaseLayer> layers;
    std::vector<StoredExpert> out;
    for (const ExpertPlace& place : places) {
      auto layer = layers.find(place.layer);
      if (layer == layers.end()) {
        Result<BaseLayer> read = read_base_layer(checkpoint, config_, place.layer);
        if (!read.ok()) return read.status();
        layer = layers.emplace(place.layer, std::move(*read)).first;
      }
      out.push_back(layer->second.experts.at(static_cast<size_t>(place.index)));
    }
    return out;
  }

  Result<std::shared_ptr<const Expert>> make(const Checkpoint& checkpoint, const ExpertPlace& place,
                                             const StoredExpert& found,
                                             const std::string& digest) const {
    const StoredExpert stored = copied_ ? copied(found) : found;
    const std::string is = digest_of(stored);
    if (is != digest) {
      return Status(Code::kDataCorrupt,
                    dir_ + ": layer " + std::to_string(place.layer) + ", expert " +
                        std::to_string(place.index) + ": found " + is + " (expected " + digest +
                        ", as it was loaded)",
                    "put the files of the backbone back as they were");
    }
    auto built = build_base_expert(stored, config_, checkpoint.block_shape(), precision_);
    if (!built.ok()) return built.status().with_context(dir_);
    if (!copied_) {
      // What was converted is not needed twice.
      for (const StoredProjection& projection : stored) {
        if (!used_in_place(projection, precision_)) checkpoint.release(projection.weight.tensor);
      }
      return InPlace::hold(std::move(*built), spans_in_place(stored, precision_));
    }
    release(checkpoint, found);
    return built;
  }

  static void release(const Checkpoint& checkpoint, const StoredExpert& stored) {
    for_each_part(stored, [&](const StoredPart& part) { checkpoint.release(part.tensor); });
  }

  const std::string dir_;
  const ModelConfig config_;
  const Precision precision_;
  std::map<std::string, FileIdentity> identities_;  // by path
  bool copied_ = false;
};

}  // namespace

Result<std::shared_ptr<const Module>> make_evictable(const std::shared_ptr<const Module>& base,
                                                     const Checkpoint& checkpoint,
                                                     const ModelConfig& config, Precision p,
                                                     std::chrono::milliseconds linger) {
  auto module = std::make_shared<Module>(*base);
  std::vector<ExpertResidency::Resident> all;
  for (auto& [index, layer] : module->layers) {
    const Result<BaseLayer> stored = read_base_layer(checkpoint, config, index);
    if (!stored.ok()) return stored.status();
    for (size_t e = 0; e < layer.experts.size(); ++e) {
      auto expert = std::make_shared<EvictableExpert>(
          InPlace::hold(layer.experts[e], spans_in_place(stored->experts.at(e), p)));
      all.push_back({{index, static_cast<int64_t>(e)}, expert});
      layer.experts[e] = std::move(expert);
    }
  }
  module->residency = std::make_shared<ExpertResidency>(
      std::make_unique<CheckpointExperts>(checkpoint, config, p), std::move(all), linger);
  return std::shared_ptr<const Module>(std::move(module));
}

}  // namespace chimera
