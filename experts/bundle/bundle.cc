#include "experts/bundle/bundle.h"

#include <algorithm>
#include <map>
#include <string_view>
#include <utility>

#include "experts/bundle/average.h"

namespace chimera {
namespace {

PlacedBytes placed(const Backbone& backbone, const NeededTensor& needed, DType stored) {
  return placed_bytes(backbone.config(), backbone.precision(), needed, stored);
}

/// What becomes of one tensor that was rounded to `stored`, in memory of its own.
MadeBytes rounded_bytes(const Backbone& backbone, const NeededTensor& needed, DType stored) {
  int64_t elements = 1;
  for (const int64_t n : needed.shape) elements *= n;
  const auto rounded = static_cast<uint64_t>(elements * dtype_bits(stored) / 8);
  const PlacedBytes bytes = placed(backbone, needed, stored);
  return {bytes.made + (bytes.in_place ? rounded : 0), rounded + bytes.made};
}

/// Of tensors that are averaged one after another.
class MadeSum {
 public:
  explicit MadeSum(const BackboneSource& source) : source_(source) {}

  void add(const MadeBytes& one) {
    sum_.resident += one.resident;
    sum_.making += one.making;
  }
  /// One that is not used as a bundle has it; `rank`: of all its changes together.
  void add_rounded(const NeededTensor& needed, int64_t rank) {
    const DType stored = source_.stored(needed.name);
    add(rounded_bytes(*source_.backbone(), needed, stored));
    most_ = std::max(most_, averaging_bytes(needed, stored, rank, auto_threads()));
  }
  MadeBytes bytes() const { return {sum_.resident, sum_.making + most_}; }

 private:
  const BackboneSource& source_;
  MadeBytes sum_;
  uint64_t most_ = 0;  // that making one of them takes beside it
};

int64_t rank_of(const SharedChange& change) { return change.a ? change.a->shape.front() : 0; }

Result<std::shared_ptr<const Backbone>> made_backbone(const BackboneSource& source,
                                                      std::span<const WeightedChanges> bundles) {
  const Result<Checkpoint> checkpoint = source.open();
  if (!checkpoint.ok()) return checkpoint.status();
  ThreadPool pool(auto_threads());
  const auto tensors = averaged_tensors(*checkpoint, source.backbone()->config(), bundles, pool);
  if (!tensors.ok()) return tensors.status();
  return source.backbone()->with(*tensors);
}

}  // namespace

MadeBytes made_of(const BackboneSource& source, std::span<const SharedChange> changes) {
  MadeSum sum(source);
  for (const SharedChange& change : changes) {
    const DType stored = source.stored(change.needed.name);
    if (change.full && change.full->dtype == stored) {  // from the file itself
      const uint64_t made = placed(*source.backbone(), change.needed, stored).made;
      sum.add({made, made});
    } else {
      sum.add_rounded(change.needed, rank_of(change));
    }
  }
  return sum.bytes();
}

Result<std::shared_ptr<const Bundle>> Bundle::make(std::shared_ptr<const BackboneSource> source,
                                                   const SafetensorsFile& file, double weight,
                                                   std::vector<SharedChange> changes) {
  auto bundle = std::make_shared<Bundle>();
  bundle->source_ = std::move(source);
  bundle->weight_ = weight;
  bundle->changes_ = std::move(changes);
  const WeightedChanges alone{weight, bundle->changes_};
  auto backbone = made_backbone(*bundle->source_, {&alone, 1});
  if (!backbone.ok()) return backbone.status();
  bundle->backbone_ = std::move(*backbone);
  bundle->bytes_ = file.file_bytes() + made_of(*bundle->source_, bundle->changes_).resident;
  return std::shared_ptr<const Bundle>(std::move(bundle));
}

Result<std::shared_ptr<const Backbone>> averaged_backbone(std::span<const Bundle* const> bundles) {
  if (bundles.size() == 1) return bundles.front()->backbone();
  std::vector<WeightedChanges> changes;
  for (const Bundle* bundle : bundles) changes.push_back({bundle->weight(), bundle->changes()});
  return made_backbone(bundles.front()->source(), changes);
}

MadeBytes average_bytes(const BackboneSource& source,
                        std::span<const std::span<const SharedChange>> bundles) {
  MadeSum sum(source);
  if (bundles.size() < 2) return sum.bytes();
  std::map<std::string_view, std::pair<const NeededTensor*, int64_t>> changed;
  for (const auto& changes : bundles) {
    for (const SharedChange& change : changes) {
      const auto at = changed.try_emplace(change.needed.name, &change.needed, 0).first;
      at->second.second += rank_of(change);
    }
  }
  for (const auto& [name, tensor] : changed) sum.add_rounded(*tensor.first, tensor.second);
  return sum.bytes();
}

}  // namespace chimera
