// Changes that load nothing: unload, bias, enable, disable.
#include <algorithm>
#include <iterator>
#include <utility>

#include "daemon/registry/impl.h"

namespace chimera {

Result<ChangeReport> Registry::Impl::make(const UnloadArgs& args, const Running& running) {
  const auto remove = [&](LoadedComposition* next) -> Status {
    if (next->composition.find(args.name) == nullptr) {
      return unknown_module(next->composition, args.name);
    }
    const Composition before = next->composition;
    remove_module(next, args.name);
    set_aside_missing(before, next);
    return {};
  };
  return commit(running, remove, InFlight::kPin);
}

Result<ChangeReport> Registry::Impl::make(const UnloadFromArgs& args, const Running& running) {
  const auto remove = [&](LoadedComposition* next) -> Status {
    for (const CompositionModule& module : next->composition.modules) {
      if (module.path != args.path) continue;
      remove_module(next, std::string(module.name));
      return {};
    }
    return {Code::kNotFound, "module: found none loaded from " + args.path};
  };
  return commit(running, remove, InFlight::kPin);
}

void Registry::Impl::start(const EditArgs& args, const Running& running, const End& end) {
  {
    const MutexLock lock(edits_mutex);
    waiting_edits.push_back({running, args, end});
    if (waiting_edits.size() > 1) return;  // whoever comes for those before comes for it as well
  }
  post_edits();
}

void Registry::Impl::post_edits() {
  auto taken = std::make_shared<std::vector<WaitingEdit>>();
  edits.post(
      [this, taken]() -> Result<Answers> {
        bool more = false;
        *taken = take_edits(&more);
        if (more) post_edits();
        return make(*taken);
      },
      [this, taken](Result<Answers> answers) {
        if (taken->empty()) {
          // Refused before it began, and so is all that waits.
          const MutexLock lock(edits_mutex);
          taken->swap(waiting_edits);
        }
        for (size_t i = 0; i < taken->size(); ++i) {
          (*taken)[i].end(answers.ok() ? std::move((*answers)[i]) : answers.status());
        }
      });
}

std::vector<Registry::Impl::WaitingEdit> Registry::Impl::take_edits(bool* more) {
  const auto alone = [](const WaitingEdit& edit) { return edit.args.edit.enabled.has_value(); };
  const MutexLock lock(edits_mutex);
  auto end = std::find_if(waiting_edits.begin(), waiting_edits.end(), alone);
  if (end == waiting_edits.begin()) ++end;
  std::vector<WaitingEdit> taken(std::make_move_iterator(waiting_edits.begin()),
                                 std::make_move_iterator(end));
  waiting_edits.erase(waiting_edits.begin(), end);
  *more = !waiting_edits.empty();
  return taken;
}

Registry::Impl::Answers Registry::Impl::make(std::span<const WaitingEdit> waiting) {
  std::vector<Proposal> proposals;
  proposals.reserve(waiting.size());
  for (const WaitingEdit& edit : waiting) {
    const auto set = [&args = edit.args](LoadedComposition* next) -> Status {
      if (next->composition.find(args.name) == nullptr) {
        return unknown_module(next->composition, args.name);
      }
      if (args.edit.bias) CHIMERA_RETURN_IF_ERROR(check_bias(args.name, *args.edit.bias));
      edit_module(next, args.name, args.edit);
      return {};
    };
    proposals.push_back({edit.running, set});
  }
  return commit(proposals, InFlight::kPin);
}

}  // namespace chimera
