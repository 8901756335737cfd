// The backbones of several bundles together, each made once while anybody uses it: tables of the
// same bundles share it, whatever else they hold.
//
// Thread safety: all methods from any thread.
#pragma once

#include <functional>
#include <memory>
#include <span>
#include <vector>

#include "backbone/backbone.h"
#include "base/status.h"
#include "base/threads/mutex.h"
#include "experts/kinds/module.h"

namespace chimera {

class Averages {
 public:
  using Modules = std::span<const std::shared_ptr<const Module>>;
  /// Makes the backbone of these bundles, two or more, in their order.
  using Make = std::function<Result<std::shared_ptr<const Backbone>>(Modules bundles)>;

  /// `make` null: averaged_backbone() as it is.
  explicit Averages(Make make = nullptr);

  /// The backbone of the bundles among `modules`; null where there are fewer than two.
  Result<std::shared_ptr<const Backbone>> of(Modules modules) EXCLUDES(mutex_, making_);

 private:
  /// The bundles are compared by address, so that looking keeps none of them alive; whoever uses
  /// the backbone has a table that does.
  struct Known {
    std::vector<const Module*> bundles;
    std::weak_ptr<const Backbone> backbone;
  };

  std::shared_ptr<const Backbone> find(const std::vector<const Module*>& bundles) EXCLUDES(mutex_);

  const Make make_;
  Mutex making_;  // held while one is made; before mutex_
  Mutex mutex_;
  std::vector<Known> known_ GUARDED_BY(mutex_);
};

}  // namespace chimera
