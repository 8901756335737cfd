// Bundle: the part of a loaded module of kind bundle that is no expert. What it changes of the
// backbone, and the backbone with that change, alone or averaged with other bundles.
//
// A backbone that is made so stands beside the one it was made of and shares all that did not
// change; it lasts for as long as a routing table that a sequence is on names it.
//
// Thread safety: immutable; making one blocks, off the engine thread.
#pragma once

#include <cstdint>
#include <memory>
#include <span>
#include <vector>

#include "base/status.h"
#include "experts/bundle/shared_tensors.h"
#include "experts/bundle/source.h"

namespace chimera {

/// Memory of backbones that are made, bytes.
struct MadeBytes {
  uint64_t resident = 0;  // what they hold and their base does not, nor a file of a bundle
  uint64_t making = 0;    // at the most while they are made, that included
};

class Bundle {
 public:
  /// `file` holds `changes`, and `weight` is above 0. Errors as of averaged_tensors()
  /// and BackboneSource::open().
  static Result<std::shared_ptr<const Bundle>> make(std::shared_ptr<const BackboneSource> source,
                                                    const SafetensorsFile& file, double weight,
                                                    std::vector<SharedChange> changes);

  double weight() const { return weight_; }
  const std::vector<SharedChange>& changes() const { return changes_; }
  const BackboneSource& source() const { return *source_; }
  /// With what this bundle alone changes.
  const std::shared_ptr<const Backbone>& backbone() const { return backbone_; }
  /// Of its file and of what was made of it.
  uint64_t resident_bytes() const { return bytes_; }

 private:
  std::shared_ptr<const BackboneSource> source_;
  double weight_ = 1.0;
  std::vector<SharedChange> changes_;
  std::shared_ptr<const Backbone> backbone_;
  uint64_t bytes_ = 0;
};

/// What Bundle::make() makes beside the file itself.
MadeBytes made_of(const BackboneSource& source, std::span<const SharedChange> changes);

/// The backbone of a composition with these bundles, in its order: the one of a single bundle, or
/// the average of several (average.h). REQUIRES: at least one, all of the same source.
Result<std::shared_ptr<const Backbone>> averaged_backbone(std::span<const Bundle* const> bundles);
/// What an average of these makes beside what each of them holds; nothing for fewer than two.
MadeBytes average_bytes(const BackboneSource& source,
                        std::span<const std::span<const SharedChange>> bundles);

}  // namespace chimera
