#include "experts/bundle/bundle.h"

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

void add(const MadeBytes& one, MadeBytes* sum) {
  sum->resident += one.resident;
  sum->making += one.making;
}

Result<std::shared_ptr<const Backbone>> made_backbone(const BackboneSource& source,
                                                      std::span<const WeightedChanges> bundles) {
  const Result<Checkpoint> checkpoint = source.open();
  if (!checkpoint.ok()) return checkpoint.status();
  const auto tensors = averaged_tensors(*checkpoint, source.backbone()->config(), bundles);
  if (!tensors.ok()) return tensors.status();
  return source.backbone()->with(*tensors);
}

}  // namespace

MadeBytes made_of(const BackboneSource& source, std::span<const SharedChange> changes) {
  MadeBytes sum;
  const Backbone& backbone = *source.backbone();
  for (const SharedChange& change : changes) {
    const DType stored = source.stored(change.needed.name);
    if (change.full && change.full->dtype == stored) {  // from the file itself
      const uint64_t made = placed(backbone, change.needed, stored).made;
      add({made, made}, &sum);
    } else {
      add(rounded_bytes(backbone, change.needed, stored), &sum);
    }
  }
  return sum;
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
  MadeBytes sum;
  if (bundles.size() < 2) return sum;
  std::map<std::string_view, const NeededTensor*> changed;
  for (const auto& changes : bundles) {
    for (const SharedChange& change : changes) changed.emplace(change.needed.name, &change.needed);
  }
  for (const auto& [name, needed] : changed)
    add(rounded_bytes(*source.backbone(), *needed, source.stored(name)), &sum);
  return sum;
}

}  // namespace chimera
