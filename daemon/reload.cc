#include "daemon/reload.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/log/log.h"
#include "daemon/server/wish.h"

namespace chimera {
namespace {

bool same_composition(const CompositionSpec& x, const CompositionSpec& y) {
  return x.top_k == y.top_k &&
         std::equal(x.modules.begin(), x.modules.end(), y.modules.begin(), y.modules.end(),
                    [](const auto& one, const auto& other) {
                      return one.path == other.path && one.enabled == other.enabled &&
                             one.bias == other.bias && one.lambda == other.lambda &&
                             one.precision == other.precision && one.weight == other.weight;
                    });
}

}  // namespace

std::vector<std::string> keys_that_need_a_restart(const DeploymentConfig& running,
                                                  const DeploymentConfig& read) {
  std::vector<std::string> keys;
  if (running.backbone.path != read.backbone.path) keys.emplace_back("backbone.path");
  for (RestartNote& note : restart_notes(read, running)) keys.push_back(std::move(note.key));
  return keys;
}

void reload(DeploymentConfig* running, Watcher* watcher, Guard& guard) {
  Result<DeploymentConfig> read = read_deployment(running->source);
  Status status = read.status();
  if (status.ok()) status = fill_defaults(&*read);
  if (status.ok()) status = guard.authority->reload();
  if (status.ok()) status = guard.modules->reload();
  if (status.ok()) status = watcher->watch(read->watch);
  if (!status.ok()) {
    return log::error("reload_refused",
                      {{"file", running->source},
                       {"reason", status.message()},
                       {"hint", "nothing was changed; correct the file and send SIGHUP again"}});
  }
  log::info("reloaded", {{"file", running->source},
                         {"watch", fmt::format("{}", fmt::join(read->watch, ", "))},
                         {"hint", "the watch directories were looked at again"}});
  running->watch = read->watch;
  if (const auto keys = keys_that_need_a_restart(*running, *read); !keys.empty()) {
    log::warning("reload_needs_restart", {{"keys", fmt::format("{}", fmt::join(keys, ", "))},
                                          {"hint", "they take effect at the next start"}});
  }
  if (!same_composition(running->composition, read->composition)) {
    log::warning("reload_composition",
                 {{"hint", "`chimera apply FILE` puts the composition of the file in place"}});
  }
}

}  // namespace chimera
