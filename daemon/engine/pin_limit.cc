#include "daemon/engine/pin_limit.h"

#include <fmt/format.h>

#include <vector>

#include "daemon/engine/sequence/module_selection.h"

namespace chimera {
namespace {

constexpr int kMostRestarts = 8;

}  // namespace

bool PinLimit::enforce(LiveSequences& live, const std::shared_ptr<const RoutingTable>& current,
                       const RoutingTable* canary) const {
  if (!limit_) return false;
  const Clock::time_point now = Clock::now();
  bool any = false;
  std::vector<RouteViewPtr> made;  // one for all that may use the same modules
  for (const auto& sequence : live.all()) {
    if (sequence->ended) continue;
    const RoutingLayout* layout = sequence->view->table->layout().get();
    const bool kept = layout == current->layout().get() ||
                      (canary != nullptr && layout == canary->layout().get());
    if (!over(*sequence, !kept, now)) continue;
    any = true;
    switch (then_) {
      case PinnedUntil::kRestart: {
        // Modules that are replaced faster than it gets on must not keep it for ever.
        if (++sequence->pin_restarts > kMostRestarts) {
          live.fail(*sequence, ended(*sequence));
          break;
        }
        const Result<RouteViewPtr> view = view_on(current, sequence->request.modules, made);
        if (view.ok()) made.push_back(*view);
        live.restart(*sequence, view);
        break;
      }
      case PinnedUntil::kEnd:
        live.fail(*sequence, ended(*sequence));
        break;
    }
  }
  return any;
}

bool PinLimit::over(Sequence& sequence, bool left, Clock::time_point now) const {
  if (!left) {
    sequence.left_behind.reset();  // or the modules came back
    return false;
  }
  if (!sequence.left_behind) sequence.left_behind = now;
  return now - *sequence.left_behind >= *limit_;
}

Status PinLimit::ended(const Sequence& sequence) const {
  return {Code::kUnavailable,
          fmt::format("the modules of epoch {}, which it ran on, were replaced {} s ago and are "
                      "not kept any longer (memory.pin_limit)",
                      sequence.view->table->epoch(), limit_->count() / 1000),
          "send it again: it will run on the current epoch"};
}

}  // namespace chimera
