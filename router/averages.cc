#include "router/averages.h"

#include <algorithm>
#include <utility>

namespace chimera {
namespace {

Result<std::shared_ptr<const Backbone>> average_of(Averages::Modules modules) {
  std::vector<const Bundle*> bundles;
  for (const auto& module : modules) bundles.push_back(module->bundle.get());
  return averaged_backbone(bundles);
}

}  // namespace

Averages::Averages(Make make) : make_(make ? std::move(make) : Make(average_of)) {}

Result<std::shared_ptr<const Backbone>> Averages::of(Modules modules) {
  std::vector<std::shared_ptr<const Module>> bundles;
  Known made;
  for (const auto& module : modules) {
    if (module->bundle == nullptr) continue;
    bundles.push_back(module);
    made.bundles.push_back(module.get());
  }
  if (bundles.size() < 2) return std::shared_ptr<const Backbone>();
  if (auto known = find(made.bundles)) return known;
  // One at a time, so that two who want the same share it. Nobody waits for what is there already.
  const MutexLock turn(making_);
  if (auto known = find(made.bundles)) return known;
  Result<std::shared_ptr<const Backbone>> backbone = make_(bundles);
  if (!backbone.ok()) return backbone.status().with_context("the average of the bundles");
  made.backbone = *backbone;
  const MutexLock lock(mutex_);
  known_.push_back(std::move(made));
  return backbone;
}

std::shared_ptr<const Backbone> Averages::find(const std::vector<const Module*>& bundles) {
  const MutexLock lock(mutex_);
  std::erase_if(known_, [](const Known& known) { return known.backbone.expired(); });
  for (const Known& known : known_) {
    if (known.bundles != bundles) continue;
    if (auto backbone = known.backbone.lock()) return backbone;
  }
  return nullptr;
}

}  // namespace chimera
