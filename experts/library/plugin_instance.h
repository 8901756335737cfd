// PluginInstance: one expert plugin of a loaded image, from create to destroy.
//
// Used by the in-process backend and by the program that isolates plugins. It checks what the
// plugin says of itself, keeps the order of the ABI's calls, and stops calling an instance that
// reported an internal error.
//
// Thread safety: open and destruction inside LibraryRuntime::control(); forward from any thread,
// and concurrently - an instance of the serial class takes the calls one by one.
#pragma once

#include <atomic>
#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "base/threads/mutex.h"
#include "base/threads/thread_pool.h"
#include "experts/library/backend.h"
#include "experts/library/plugin_host.h"
#include "experts/library/plugin_image.h"

namespace chimera {

/// Rows of one forward call as the ABI wants them: bases multiples of alignment(), strides of
/// CHIMERA_ALIGNMENT (row_stride() will do), x padded with zeros.
struct PluginRows {
  const void* x = nullptr;
  void* y = nullptr;
  uint64_t x_stride = 0, y_stride = 0;  // bytes
  uint32_t rows = 0;                    // at most max_rows
};

/// What the caller of forward lends.
struct PluginCompute {
  ThreadPool* pool = nullptr;
  void* scratch = nullptr;   // scratch_bytes(pool->threads()), aligned to alignment()
  uint64_t deadline_ns = 0;  // 0: none
  const uint32_t* cancel = nullptr;
  const uint64_t* row_epochs = nullptr;  // [rows]; null: on no table
};

class PluginInstance {
 public:
  /// create, prepare, activate. On failure everything is undone.
  static Result<std::unique_ptr<PluginInstance>> open(const PluginImage& image,
                                                      const LibrarySource& source,
                                                      LibraryRuntime& runtime)
      REQUIRES(runtime.control());
  ~PluginInstance();  // deactivate, destroy
  PluginInstance(const PluginInstance&) = delete;
  PluginInstance& operator=(const PluginInstance&) = delete;

  const LibraryInfo& info() const { return info_; }
  /// Of rows and scratch, bytes.
  uint64_t alignment() const { return alignment_; }
  /// Bytes from row to row of [rows, hidden] F32.
  uint64_t row_stride() const;
  /// Scratch memory for a pool of `threads` threads, bytes.
  uint64_t scratch_bytes(int threads) const { return scratch_stride_ * workers(threads); }

  /// failed_precondition once poisoned.
  Status forward(int64_t layer, int64_t expert, const PluginRows& rows,
                 const PluginCompute& compute);
  /// Outputs afterwards equal those of a fresh instance. REQUIRES: no forward runs; control.
  Status reset();

  bool poisoned() const { return poisoned_.load(std::memory_order_relaxed); }
  /// Memory of the host's services and of the module's tensors, and what the plugin tells of.
  uint64_t resident_bytes() const { return host_->used_bytes() + tensor_bytes_ + own_bytes_; }
  std::map<std::string, uint64_t> counters() const { return host_->counters(); }

 private:
  PluginInstance(const LibrarySource& source, LibraryRuntime& runtime);
  Status create(const PluginImage& image);
  Status activate(uint32_t max_rows);
  uint64_t workers(int threads) const;
  Status failed(Status status);

  const std::string label_, id_, config_;
  const std::vector<TensorView> tensors_;
  uint64_t tensor_bytes_ = 0;
  const uint64_t memory_limit_;
  const uint64_t hidden_;
  const uint32_t max_workers_;
  LibraryInfo info_;
  uint64_t alignment_ = CHIMERA_ALIGNMENT;
  uint64_t scratch_stride_ = 0;  // per worker
  uint64_t own_bytes_ = 0;       // chimera.residency.draft/1
  std::unique_ptr<PluginHost> host_;
  const chimera_expert_descriptor* descriptor_ = nullptr;
  chimera_expert* expert_ = nullptr;
  bool active_ = false;
  std::atomic<bool> poisoned_{false};
  Mutex serial_;  // held by a call of an instance of the serial class
};

/// Compares what a plugin says of itself with the ABI, the machine, the ELF note, the manifest and
/// the backbone; every difference in one Status.
Status check_plugin_descriptor(const chimera_expert_descriptor& descriptor,
                               const LibrarySource& source);
/// CHIMERA_CPU_* bits of this machine.
uint64_t plugin_cpu_features();

}  // namespace chimera
