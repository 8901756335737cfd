#include "experts/library/runtime.h"

#include <fmt/format.h>

#include <algorithm>

#include "base/threads/thread_pool.h"
#include "chimera/expert.h"

namespace chimera {

LibraryRuntime::LibraryRuntime(Options options)
    : options_(std::move(options)),
      worker_count_(std::min(options_.worker_count != 0 ? options_.worker_count
                                                        : static_cast<uint32_t>(auto_threads()),
                             CHIMERA_MAX_WORKERS)) {}

uint64_t LibraryRuntime::next_generation() {
  static std::atomic<uint64_t> last{0};
  return last.fetch_add(1) + 1;
}

LibraryStats LibraryRuntime::stats() const {
  LibraryStats stats;
  stats.loaded = loaded_.load();
  stats.unloaded = unloaded_.load();
  stats.log_lines_dropped = dropped_lines_.load();
  stats.kept_limit = options_.kept_limit;
  stats.kept_bytes_limit = options_.kept_bytes_limit;
  const MutexLock guard(mutex_);
  stats.kept = kept_.size();
  stats.kept_bytes = kept_bytes_;
  stats.kept_images = kept_;
  return stats;
}

void LibraryRuntime::log(Severity severity, const std::string& module,
                         const std::string& line) const {
  if (options_.log) options_.log(severity, module, line);
}

Status LibraryRuntime::check_demands(const std::string& module, const LibrarySpec& spec) const {
  const LibraryCeilings& most = options_.ceilings;
  std::vector<std::string> above;
  if (spec.deadline_ms > most.deadline_ms) {
    above.push_back(
        fmt::format("library.deadline_ms: found {} (expected at most {}, "
                    "libraries.max_deadline_ms of the deployment)",
                    spec.deadline_ms, most.deadline_ms));
  }
  if (static_cast<uint64_t>(spec.memory_mib) << 20 > most.memory) {
    above.push_back(
        fmt::format("library.memory_mib: found {} (expected at most {}, "
                    "libraries.max_memory of the deployment)",
                    spec.memory_mib, most.memory >> 20));
  }
  if (above.empty()) return {};
  return {Code::kPermissionDenied, fmt::format("module {}: {}", module, fmt::join(above, "; ")),
          "Have its owner ask for less, or raise what the deployment allows."};
}

Status LibraryRuntime::admit(const std::string& module) const {
  const MutexLock guard(mutex_);
  if (kept_.size() < options_.kept_limit && kept_bytes_ < options_.kept_bytes_limit) return {};
  return {Code::kResourceExhausted,
          fmt::format("module {}: found {} retired libraries of {} MiB that could not be unmapped "
                      "(expected less than {} and {} MiB)",
                      module, kept_.size(), kept_bytes_ >> 20, options_.kept_limit,
                      options_.kept_bytes_limit >> 20),
          "Restart the daemon at a quiet moment, or run the module with isolation: process."};
}

void LibraryRuntime::count_loaded() { ++loaded_; }
void LibraryRuntime::count_unloaded() { ++unloaded_; }

void LibraryRuntime::count_kept(KeptImage image) {
  const std::string module = image.module;
  std::string line = fmt::format("library {} {} stays mapped ({} KiB): {}", image.id, image.version,
                                 image.bytes >> 10, image.reason);
  bool near = false;
  {
    const MutexLock guard(mutex_);
    kept_bytes_ += image.bytes;
    kept_.push_back(std::move(image));
    near = 4 * kept_.size() >= 3 * options_.kept_limit ||
           kept_bytes_ >= options_.kept_bytes_limit / 4 * 3;
    line += fmt::format("; {} of at most {} such libraries", kept_.size(), options_.kept_limit);
  }
  log(near ? Severity::kWarning : Severity::kInfo, module, line);
}

}  // namespace chimera
