#include "daemon/server/answers/reports.h"

#include <filesystem>

#include "base/io/mapped_changes.h"

namespace chimera {
namespace {

Json change_list(const std::vector<ChangeItem>& changes) {
  Json out = Json::array();
  for (const ChangeItem& change : changes) {
    out.push_back({{"action", kChangeActionNames.name(change.action)},
                   {"module", change.module},
                   {"detail", change.detail}});
  }
  return out;
}

Json library_json(const ModuleStatus::Library& library) {
  const LibraryInfo& info = library.info;
  const LibraryStatus& status = library.status;
  Json out = {{"id", info.id},
              {"abi", info.abi},
              {"build", info.build},
              {"isolation", kIsolationNames.name(library.isolation)},
              {"determinism", info.bitwise ? "bitwise" : "tolerance"},
              {"unload_clean", info.unload_clean},
              {"state", kLibraryStateNames.name(status.state)},
              {"calls", status.calls},
              {"failures", status.failures},
              {"restarts", status.restarts},
              {"metrics", status.counters}};
  if (!status.sandbox.empty()) out["sandbox"] = status.sandbox;
  if (!status.last_error.empty()) out["last_error"] = status.last_error;
  return out;
}

/// A library that is not there answers nobody, whatever the composition says of its module.
std::string_view state_of(const ModuleStatus& module) {
  const bool serves = !module.library || module.library->status.state == LibraryState::kActive;
  return module.state == ModuleState::kActive && !serves
             ? kLibraryStateNames.name(module.library->status.state)
             : kModuleStateNames.name(module.state);
}

}  // namespace

Json to_json(const Status& status) {
  return {
      {"code", code_name(status.code())}, {"message", status.message()}, {"hint", status.hint()}};
}

Json to_json(const ChangeReport& report) {
  Json out = {{"epoch", report.epoch},
              {"composition", report.composition},
              {"changes", change_list(report.changes)},
              {"notes", report.notes},
              {"disabled", report.disabled}};
  if (!report.durable) out["durable"] = false;
  if (report.canary) out["canary"] = *report.canary;
  return out;
}

namespace {

Json side_json(const CanarySide& side) {
  Json out = {{"requests", side.requests}, {"failed", side.failed}, {"tokens", side.tokens}};
  if (const auto rate = error_rate(side)) out["error_rate"] = *rate;
  if (const auto ms = ms_per_token(side)) out["ms_per_token"] = *ms;
  if (const auto bits = bits_per_byte(side)) out["bits_per_byte"] = *bits;
  return out;
}

Json bounds_json(const CanaryBounds& bounds) {
  Json out = {{"after", bounds.after}};
  if (bounds.error_rate) out["error_rate"] = *bounds.error_rate;
  if (bounds.ms_per_token) out["ms_per_token"] = *bounds.ms_per_token;
  if (bounds.bits_per_byte) out["bits_per_byte"] = *bounds.bits_per_byte;
  return out;
}

}  // namespace

Json to_json(const CanaryStatus& canary) {
  Json out = {{"module", canary.module},
              {"version", canary.version},
              {"digest", canary.digest},
              {"fraction", canary.fraction},
              {"epoch", canary.epoch},
              {"composition", canary.composition},
              {"since", canary.since},
              {"outcome", kCanaryOutcomeNames.name(canary.outcome)},
              {"bounds", bounds_json(canary.bounds)},
              {"on_canary", side_json(canary.counts.canary)},
              {"on_current", side_json(canary.counts.current)}};
  if (canary.outcome != CanaryOutcome::kRunning) {
    out["until"] = canary.until;
    out["reason"] = canary.reason;
  }
  return out;
}

Json to_json(const PlanReport& report) {
  Json refusals = Json::array();
  for (const Status& refusal : report.refusals) refusals.push_back(to_json(refusal));
  Json out = {{"accepted", report.refusals.empty()},
              {"changes", change_list(report.changes)},
              {"memory_bytes", report.memory_bytes},
              {"refusals", std::move(refusals)},
              {"notes", report.notes},
              {"composition", report.composition}};
  if (report.experts_bytes != 0) out["experts_bytes"] = report.experts_bytes;
  if (report.shares.empty()) return out;
  Json shares = Json::array();
  for (const PredictedShare& share : report.shares) {
    shares.push_back({{"module", share.module}, {"now", share.now}, {"then", share.then}});
  }
  out["shares"] = std::move(shares);
  out["share_samples"] = report.share_samples;
  return out;
}

Json to_json(const LibraryStats& stats) {
  Json images = Json::array();
  for (const KeptImage& image : stats.kept_images) {
    images.push_back({{"module", image.module},
                      {"version", image.version},
                      {"id", image.id},
                      {"bytes", image.bytes},
                      {"reason", image.reason}});
  }
  return {{"loaded", stats.loaded},
          {"unloaded", stats.unloaded},
          {"kept", stats.kept},
          {"kept_bytes", stats.kept_bytes},
          {"kept_limit", stats.kept_limit},
          {"kept_bytes_limit", stats.kept_bytes_limit},
          {"log_lines_dropped", stats.log_lines_dropped},
          {"kept_images", std::move(images)}};
}

Json to_json(const ModuleStatus& module) {
  Json out = {{"name", module.name},
              {"version", module.version},
              {"domain", module.domain},
              {"description", module.description},
              {"digest", module.digest},
              {"license", module.license},
              {"kind", kModuleKindNames.name(module.kind)},
              {"attach", kAttachNames.name(module.attach)},
              {"enabled", module.enabled},
              {"bias", module.bias},
              {"experts", module.experts},
              {"resident_bytes", module.resident_bytes},
              {"state", state_of(module)}};
  if (!module.path.empty()) out["path"] = module.path;
  if (module.precision) out["precision"] = kPrecisionNames.name(*module.precision);
  if (module.weight) out["weight"] = *module.weight;
  for (const auto& [parent, value] : module.lambda) out["lambda"][parent] = value;
  if (module.top_k) out["top_k"] = *module.top_k;
  if (module.resident) out["resident"] = *module.resident;
  if (module.job) out["job"] = to_json(*module.job);
  if (module.library) out["library"] = library_json(*module.library);
  return out;
}

Json to_json(const JobStatus& job) {
  Json out = {{"id", job.id},           {"call", job.call},
              {"modules", job.modules}, {"phase", kJobPhaseNames.name(job.phase)},
              {"bytes", job.bytes},     {"bytes_total", job.bytes_total},
              {"seconds", job.seconds}};
  if (job.seconds_left) out["seconds_left"] = *job.seconds_left;
  if (job.epoch != 0) out["epoch"] = job.epoch;
  if (!job.outcome.ok()) out["error"] = to_json(job.outcome);
  return out;
}

Json to_json(const EpochInfo& epoch) {
  return {{"epoch", epoch.epoch},
          {"composition", epoch.composition},
          {"sequences", epoch.sequences},
          {"current", epoch.current},
          {"canary", epoch.canary}};
}

Json to_json(const EpochRecord& record) {
  Json modules = Json::array();
  for (const CompositionModule& module : record.composition.modules) {
    Json entry = {{"name", module.name},
                  {"version", module.version},
                  {"path", module.path},
                  {"enabled", module.enabled},
                  {"bias", module.bias}};
    if (!module.lambda.empty()) entry["lambda"] = module.lambda;
    if (module.precision) entry["precision"] = kPrecisionNames.name(*module.precision);
    if (module.weight) entry["weight"] = *module.weight;
    modules.push_back(std::move(entry));
  }
  Json out = {{"epoch", record.epoch},
              {"time", record.time},
              {"composition", record.composition.digest()},
              {"modules", std::move(modules)},
              {"revoked", record.revoked}};
  if (record.composition.top_k) out["top_k"] = *record.composition.top_k;
  return out;
}

Json to_json(const Latencies& latencies) {
  const auto histogram = [](const Latency& latency) -> Json {
    return {{"counts", std::vector<uint64_t>(latency.counts.begin(), latency.counts.end())},
            {"sum", latency.sum}};
  };
  return {{"le", std::vector<double>(Latency::kBounds.begin(), Latency::kBounds.end())},
          {"queue", histogram(latencies.queue)},
          {"prefill", histogram(latencies.prefill)},
          {"first_token", histogram(latencies.first_token)},
          {"inter_token", histogram(latencies.inter_token)},
          {"step", histogram(latencies.step)},
          {"request", histogram(latencies.request)}};
}

Json to_json(const EngineStats& stats) {
  return {{"live", stats.live},
          {"waiting", stats.waiting},
          {"admitted", stats.admitted},
          {"finished", stats.finished},
          {"failed", stats.failed},
          {"cancelled", stats.cancelled},
          {"rejected", stats.rejected},
          {"restarted", stats.restarted},
          {"prompt_tokens", stats.prompt_tokens},
          {"generated_tokens", stats.generated_tokens},
          {"cached_tokens", stats.cached_tokens},
          {"drafted_tokens", stats.drafted_tokens},
          {"accepted_tokens", stats.accepted_tokens},
          {"dropped_choices", stats.dropped_choices},
          {"steps", stats.steps},
          {"step_ms_p50", stats.step_ms_p50},
          {"step_ms_p99", stats.step_ms_p99},
          {"latency_seconds", to_json(stats.latencies)},
          {"kv_blocks_total", stats.kv_blocks_total},
          {"kv_blocks_free", stats.kv_blocks_free},
          {"kv_bytes_budget", stats.kv_bytes_budget},
          {"kv_bytes_resident", stats.kv_bytes_resident},
          {"kv_bytes_used", stats.kv_bytes_used},
          {"kv_bytes_cached", stats.kv_bytes_cached},
          {"paused", stats.paused}};
}

Json to_json(const AdapterStats& stats) {
  return {{"limit_bytes", stats.limit},     {"bytes", stats.bytes},
          {"registered", stats.registered}, {"resident", stats.resident},
          {"in_use", stats.in_use},         {"waiting", stats.waiting},
          {"reads", stats.reads},           {"read_failures", stats.read_failures},
          {"evictions", stats.evictions}};
}

Json to_json(const Ledger::Account& account) {
  Json parts = Json::array();
  for (const Ledger::Entry& entry : account.entries) {
    Json part = {{"use", kMemoryUseNames.name(entry.use)}, {"bytes", entry.bytes}};
    if (entry.evicted > 0) part["evicted_bytes"] = entry.evicted;
    if (!entry.name.empty()) part["name"] = entry.name;
    parts.push_back(std::move(part));
  }
  return {{"budget_bytes", account.budget.bytes},
          {"limit_bytes", account.budget.limit},
          {"reserve_bytes", account.budget.reserve},
          {"source", account.budget.source},
          {"used_bytes", account.used},
          {"free_bytes", account.free()},
          {"parts", std::move(parts)}};
}

Json to_json(const RouterStats::Layer& layer, int64_t index) {
  double total = 0.0;
  for (const auto& [name, mass] : layer.mass) total += mass;
  Json modules = Json::object();
  for (const auto& [name, counts] : layer.expert_tokens) modules[name]["experts"] = counts;
  for (const auto& [name, mass] : layer.mass) {
    modules[name]["share"] = total > 0.0 ? mass / total : 0.0;
  }
  for (auto& [name, entry] : modules.items()) {
    if (!entry.contains("share")) entry["share"] = 0.0;
    if (!entry.contains("experts")) entry["experts"] = Json::array();
  }
  const double tokens = static_cast<double>(layer.tokens);
  return {{"layer", index},
          {"tokens", layer.tokens},
          {"entropy", layer.tokens == 0 ? 0.0 : layer.entropy_sum / tokens},
          {"modules", std::move(modules)}};
}

Json changed_files_json() {
  Json names = Json::array();
  for (const std::string& path : changed_mappings()) {
    names.push_back(std::filesystem::path(path).filename().string());
  }
  return names;
}

}  // namespace chimera
