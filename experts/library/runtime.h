// What all library modules of a process share: limits, the log, the count of libraries that could
// not be unloaded, and the lock that keeps control calls apart.
//
// Code once loaded often cannot be unmapped: unique symbols, thread-local destructors, threads left
// behind. Such an image is kept, counted and shown; above the cap further loads are refused with
// the advice to restart.
//
// Thread safety: all methods from any thread.
#pragma once

#include <atomic>
#include <chrono>
#include <cstdint>
#include <functional>
#include <limits>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/threads/mutex.h"
#include "experts/module/manifest.h"

namespace chimera {

/// A library that stayed mapped after its module was retired.
struct KeptImage {
  std::string module, version, id;
  uint64_t bytes = 0;  // mapped
  std::string reason;  // why it was not unmapped
};

struct LibraryStats {
  uint64_t loaded = 0;    // images loaded since the start, in this process or in one of their own
  uint64_t unloaded = 0;  // of these: unmapped, and verified to be; or gone with their process
  uint64_t kept = 0;      // of these: retired but still mapped
  uint64_t kept_bytes = 0;
  uint64_t kept_limit = 0;
  uint64_t kept_bytes_limit = 0;
  uint64_t log_lines_dropped = 0;
  std::vector<KeptImage> kept_images;
};

/// What a deployment lets libraries take, whatever their manifests ask for.
struct LibraryCeilings {
  int64_t deadline_ms = std::numeric_limits<int64_t>::max();  // library.deadline_ms
  uint64_t memory = std::numeric_limits<uint64_t>::max();     // library.memory_mib, in bytes
  /// From the start of its process, or of its code in this one, to the end of the self-test. Long
  /// by default, as loading may pack gigabytes of weights.
  std::chrono::milliseconds load{60'000};
  /// For how long one forward pass, over all its layers, waits for one library in a process of its
  /// own. It goes on without one that takes longer, within its own deadline or not.
  std::chrono::milliseconds pass = std::chrono::milliseconds::max();
};

class LibraryRuntime {
 public:
  enum class Severity : uint8_t { kDebug, kInfo, kWarning, kError };
  struct Options {
    bool allow_in_process = true;
    uint32_t worker_count = 0;  // most workers of a forward call; 0: auto_threads()
    uint64_t kept_limit = 32;   // images
    uint64_t kept_bytes_limit = 256 << 20;
    LibraryCeilings ceilings = {};
    std::string host_program;  // chimera-plugin-host; empty: beside this program
    std::string state_dir;     // where quarantines are remembered; empty: nowhere
    /// Receives the lines of plugins and of the runtime; called from any thread.
    std::function<void(Severity, const std::string& module, const std::string& line)> log;
  };
  explicit LibraryRuntime(Options options);

  const Options& options() const { return options_; }
  uint32_t worker_count() const { return worker_count_; }
  LibraryStats stats() const;
  void log(Severity severity, const std::string& module, const std::string& line) const;

  /// Held around every control call of every plugin: loads, retirements.
  Mutex& control() RETURN_CAPABILITY(control_) { return control_; }
  /// A number that never comes again in this process, from whichever runtime: the dynamic loader's
  /// table of names is the process's.
  static uint64_t next_generation();

  /// ok, or permission_denied that names all that a manifest asks for above the ceilings.
  Status check_demands(const std::string& module, const LibrarySpec& spec) const;
  /// ok, or resource_exhausted when the cap of kept images is reached.
  Status admit(const std::string& module) const;
  void count_loaded();
  void count_unloaded();
  /// Also logs: a warning from three quarters of the cap on.
  void count_kept(KeptImage image);
  void count_dropped_lines(uint64_t lines) { dropped_lines_.fetch_add(lines); }

 private:
  const Options options_;
  const uint32_t worker_count_;
  Mutex control_;
  std::atomic<uint64_t> loaded_{0}, unloaded_{0}, dropped_lines_{0};
  mutable Mutex mutex_;
  std::vector<KeptImage> kept_ GUARDED_BY(mutex_);
  uint64_t kept_bytes_ GUARDED_BY(mutex_) = 0;
};

}  // namespace chimera
