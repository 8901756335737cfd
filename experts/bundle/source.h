// The backbone that bundles change: as it is loaded, and its checkpoint, for the numbers as they
// are stored there. What is loaded may be packed, and averages are rounded from what was trained.
//
// Thread safety: immutable; open() from any thread.
#pragma once

#include <map>
#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "backbone/backbone.h"
#include "backbone/checkpoint/checkpoint.h"
#include "base/status.h"

namespace chimera {

class BackboneSource {
 public:
  /// `backbone`: loaded from `checkpoint`, which need not be kept.
  BackboneSource(std::shared_ptr<const Backbone> backbone, const Checkpoint& checkpoint);

  const std::shared_ptr<const Backbone>& backbone() const { return backbone_; }
  /// How the checkpoint holds a tensor of the backbone; F32 for names that are none.
  DType stored(std::string_view name) const;
  /// The checkpoint again, mapped. failed_precondition when its files are not those any more that
  /// the backbone was loaded from; else errors of Checkpoint::open.
  Result<Checkpoint> open() const;

 private:
  /// One file of the checkpoint, as it was.
  struct File {
    std::string path;
    FileIdentity identity;
  };

  std::shared_ptr<const Backbone> backbone_;
  std::string dir_;
  std::vector<File> files_;
  std::map<std::string, DType, std::less<>> stored_;
};

}  // namespace chimera
