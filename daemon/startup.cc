#include "daemon/startup.h"

#include <fmt/format.h>
#include <malloc.h>
#include <sys/resource.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <filesystem>

#include "base/io/env.h"
#include "base/log/log.h"
#include "clients/wire/endpoints.h"

namespace chimera {
namespace {

// Times serve.prefill_chunk that a prompt may take which is alone: by default 512 tokens, of which
// an expert of 64 gets 64 where a token chooses eight, so that its weights are read for many.
constexpr int64_t kLoneChunks = 4;

// What gates saw, unless the deployment says how much: of a hidden size of 2,048 a thousand
// samples, which tell a share to within three points (two standard deviations of what a token's
// share is).
constexpr uint64_t kGateSampleBytes = uint64_t{4} << 20;

/// Whoever may write there can put a socket of his own in the place of ours.
Status check_endpoint_directory(const std::string& dir) {
  struct stat info {};
  if (stat(dir.c_str(), &info) != 0) return errno_status(dir, errno);
  const bool foreign = info.st_uid != geteuid() && info.st_uid != 0;
  const bool open = (info.st_mode & 022) != 0 && (info.st_mode & S_ISVTX) == 0;
  if (!foreign && !open) return {};
  return {Code::kPermissionDenied,
          fmt::format("directory {}: found owner {} and mode {:04o} (expected one that nobody else "
                      "can write)",
                      dir, info.st_uid, info.st_mode & 07777),
          "chmod 700 it, or choose another place for the endpoint"};
}

}  // namespace

Result<std::vector<FileLock>> lock_endpoints(const DeploymentConfig& config) {
  std::vector<FileLock> locks;
  for (const std::string& endpoint : {config.serve.endpoint, config.control.endpoint}) {
    const std::string path(wire::ipc_path(endpoint));
    if (path.empty()) continue;
    const std::string parent = parent_directory(path);
    if (std::error_code none; !std::filesystem::is_directory(parent, none)) {
      std::error_code error;
      std::filesystem::create_directories(parent, error);
      if (error) return errno_status("directory of " + endpoint, error.value());
      chmod(parent.c_str(), 0700);
    }
    CHIMERA_RETURN_IF_ERROR(check_endpoint_directory(parent));
    Result<FileLock> lock = FileLock::take(path + ".lock", "endpoint " + endpoint);
    if (!lock.ok()) return lock.status();
    locks.push_back(std::move(*lock));
  }
  return locks;
}

std::shared_ptr<LibraryRuntime> library_runtime(const DeploymentConfig& config) {
  LibraryRuntime::Options options;
  options.allow_in_process = config.libraries.in_process;
  options.worker_count = static_cast<uint32_t>(config.threads);
  options.ceilings = {config.libraries.max_deadline_ms, config.libraries.max_memory,
                      std::chrono::milliseconds(config.libraries.max_load_ms),
                      std::chrono::milliseconds(config.libraries.max_step_ms)};
  options.state_dir = config.state_dir;
  options.log = [](LibraryRuntime::Severity severity, const std::string& module,
                   const std::string& line) {
    using Severity = LibraryRuntime::Severity;
    const auto write = severity == Severity::kDebug     ? log::debug
                       : severity == Severity::kInfo    ? log::info
                       : severity == Severity::kWarning ? log::warning
                                                        : log::error;
    write("library", {{"module", module}, {"line", line}});
  };
  return std::make_shared<LibraryRuntime>(std::move(options));
}

void log_ready(const DeploymentConfig& config, const Engine& engine,
               std::chrono::steady_clock::duration took) {
  const auto current = engine.current();
  log::info("ready", {{"ms", std::chrono::duration<double, std::milli>(took).count()},
                      {"serve", config.serve.endpoint},
                      {"control", config.control.endpoint},
                      {"epoch", current.epoch},
                      {"composition", current.composition}});
}

void log_findings(const StateStore& state) {
  for (const std::string& warning : state.warnings()) {
    log::warning("state_generation_skipped", {{"reason", warning}});
  }
}

namespace {

/// What quantised weights take in memory; a warning when it is clearly more than the files.
void log_quantization(const LoadedBackbone& model) {
  if (model.quantization.empty()) return;
  const uint64_t held = model.backbone->resident_bytes() + model.base->resident_bytes();
  log::info("quantized_weights", {{"stored_as", model.quantization},
                                  {"file_bytes", model.stored_bytes},
                                  {"memory_bytes", held}});
  if (held <= model.stored_bytes + model.stored_bytes / 4) return;
  log::warning("weights_widened",
               {{"stored_as", model.quantization},
                {"file_bytes", model.stored_bytes},
                {"memory_bytes", held},
                {"hint",
                 "attention, embedding and head are held as F32 so that no value is rounded; "
                 "backbone.precision q8 or q4 takes less"}});
}

}  // namespace

void log_findings(const DeploymentConfig& config, const LoadedBackbone& model) {
  if (!model.chat_template_problem.ok()) {
    log::warning("chat_template_unusable", {{"reason", model.chat_template_problem.to_string()}});
  }
  log_quantization(model);
  const int64_t most = model.backbone->config().max_position_embeddings;
  if (config.serve.max_context > most) {
    log::info("context_limited_by_model",
              {{"tokens", most}, {"serve.max_context", config.serve.max_context}});
  }
}

void prepare_process() {
  // Weights go back to the system when a module is released, instead of into a fragmented heap.
  mallopt(M_MMAP_THRESHOLD, 256 << 10);
  rlimit limit{};
  if (getrlimit(RLIMIT_NOFILE, &limit) != 0 || limit.rlim_cur == limit.rlim_max) return;
  limit.rlim_cur = limit.rlim_max;
  (void)setrlimit(RLIMIT_NOFILE, &limit);
}

EngineOptions engine_options(const DeploymentConfig& config) {
  EngineOptions options;
  options.threads = config.threads > 0 ? config.threads : auto_threads();
  options.max_sequences = config.serve.max_sequences;
  options.max_context = config.serve.max_context;
  options.max_queue = config.serve.max_queue;
  options.prefill_chunk = config.serve.prefill_chunk;
  options.lone_chunk = kLoneChunks * config.serve.prefill_chunk;
  options.step_target_ms = static_cast<double>(config.serve.step_target_ms);
  options.max_live_epochs = config.serve.max_live_epochs;
  options.prefix_cache = config.serve.prefix_cache;
  options.ngram_speculation = config.serve.ngram_speculation;
  options.kv_format = config.memory.kv_format;
  if (config.memory.unread) options.max_output_bytes = *config.memory.unread;
  options.gate_sample_bytes = config.memory.gate_samples.value_or(kGateSampleBytes);
  if (config.memory.pin_limit) options.pin_limit = std::chrono::seconds(*config.memory.pin_limit);
  options.pinned = config.memory.end_pinned ? PinnedUntil::kEnd : PinnedUntil::kRestart;
  return options;
}

}  // namespace chimera
