#include "clients/gateway/native/changes.h"

#include <algorithm>
#include <utility>

#include "base/json/writer.h"

namespace chimera::gateway::native {
namespace {

/// Without what moves all the time, as memory and counters of libraries do.
Json told_of(const Json& module) {
  Json out = Json::object();
  for (const char* key : {"name", "version", "state", "enabled", "bias"}) {
    if (module.contains(key)) out[key] = module[key];
  }
  return out;
}

/// What is on its way out may have the name and version of what took its place.
std::string key_of(const Json& module) {
  const bool leaves = module.value("state", "") == "retiring";
  return module.value("name", "") + " " + module.value("version", "") + (leaves ? " retiring" : "");
}

}  // namespace

std::string sse(std::string_view name, const Json& data) {
  return "event: " + std::string(name) + "\ndata: " + write_json(data) + "\n\n";
}

std::string Changes::look(const Json& modules, const Json& epochs) {
  std::string back;
  if (!std::exchange(away_, "").empty()) back = sse("daemon", {{"status", "ok"}});
  std::string changes = new_epochs(epochs) + new_modules(modules["modules"]);
  if (modules.contains("jobs")) changes += new_jobs(modules["jobs"]);
  return std::exchange(begun_, true) ? back + changes : back;
}

std::string Changes::away(std::string_view reason) {
  if (!std::exchange(away_, std::string(reason)).empty()) return {};
  return sse("daemon", {{"status", "away"}, {"reason", reason}});
}

std::string Changes::state() const {
  Json list = Json::array();
  for (const auto& [key, module] : modules_) list.push_back(module);
  return sse("state", {{"daemon", away_.empty() ? "ok" : "away"},
                       {"epoch", told_.epoch},
                       {"composition", told_.composition},
                       {"modules", std::move(list)}});
}

Changes::Told Changes::told_by(const Json& record) {
  return {record.value("epoch", uint64_t{0}), record.value("time", ""),
          record.value("composition", "")};
}

bool Changes::goes_on(const Json& epochs) const {
  if (epochs.value("epoch", uint64_t{0}) < told_.epoch) return false;
  const Json& history = epochs["history"];
  return std::none_of(history.begin(), history.end(), [this](const Json& record) {
    const Told now = told_by(record);
    return now.epoch == told_.epoch && now != told_;
  });
}

std::string Changes::new_epochs(const Json& epochs) {
  const uint64_t current = epochs.value("epoch", uint64_t{0});
  std::string out;
  uint64_t after = told_.epoch;
  // Its newest one then: what came before is history, of another state directory or told already.
  if (!goes_on(epochs)) after = std::max(current, uint64_t{1}) - 1;
  for (const Json& record : epochs["history"]) {
    const Told told = told_by(record);
    // Recorded before it is published, which may fail: what is not current yet may never be.
    if (told.epoch <= after || told.epoch > current) continue;
    told_ = told;
    out += sse("epoch", record);
  }
  return out;
}

std::string Changes::new_modules(const Json& modules) {
  std::string out;
  std::map<std::string, Json> now;
  for (const Json& module : modules) now[key_of(module)] = told_of(module);
  for (const auto& [key, module] : now) {
    const auto was = modules_.find(key);
    if (was == modules_.end() || was->second != module) out += sse("module", module);
  }
  for (auto& [key, module] : modules_) {
    if (now.contains(key)) continue;
    module["state"] = "gone";
    out += sse("module", module);
  }
  modules_ = std::move(now);
  return out;
}

std::string Changes::new_jobs(const Json& jobs) {
  std::string out;
  std::map<std::string, std::string> now;
  for (const Json& job : jobs) {
    const std::string id = job.value("id", "");
    const std::string phase = job.value("phase", "") + (job.contains("error") ? " failed" : "");
    now[id] = phase;
    const auto was = phases_.find(id);
    if (was == phases_.end() || was->second != phase) out += sse("job", job);
  }
  phases_ = std::move(now);
  return out;
}

}  // namespace chimera::gateway::native
