// PluginHost: the host that one plugin instance sees, with the services of ABI 1.1.
//
// Plugins are not trusted to keep the rules: arguments are checked, floods cut, memory capped and
// what is not given back taken back. Which call a thread is in - and so which role it has, and
// where an error text belongs - is kept per thread by PluginCallScope.
//
// Thread safety: as the tags of each service say. Lifetime: outlives its instance.
#pragma once

#include <array>
#include <atomic>
#include <chrono>
#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "base/threads/mutex.h"
#include "base/threads/thread_pool.h"
#include "chimera/services.h"
#include "compute/kernels/kernels.h"
#include "compute/tensor/tensor.h"
#include "experts/library/runtime.h"

namespace chimera {

/// Ids of the services that every PluginHost has.
bool has_plugin_service(const char* id);

class PluginHost {
 public:
  struct Options {
    std::string module;
    std::string program = "chimerad";                  // what the plugin sees as the host's name
    const std::vector<TensorView>* tensors = nullptr;  // in order of name; may be null
    uint64_t memory_limit = 0;                         // bytes
    LibraryRuntime* runtime = nullptr;                 // outlives the host
  };
  explicit PluginHost(Options options);
  ~PluginHost();  // frees what the plugin left, and says so
  PluginHost(const PluginHost&) = delete;
  PluginHost& operator=(const PluginHost&) = delete;

  const chimera_host* abi() const { return &abi_; }
  /// Bytes of chimera.memory/1 and chimera.matmul/1.
  uint64_t used_bytes() const { return used_.load(std::memory_order_relaxed); }
  /// Values of chimera.metrics/1 by name; a histogram as NAME_count and NAME_le_BOUND.
  std::map<std::string, uint64_t> counters() const;

 private:
  friend struct PluginServices;
  struct Histogram {
    std::string name;
    std::vector<double> bounds;
    std::array<std::atomic<uint64_t>, CHIMERA_METRICS_MAX_BOUNDS + 1> buckets{};
  };
  struct Counter {
    std::string name;
    std::atomic<uint64_t> value{0};
  };

  void write_log(uint32_t severity, chimera_text line);
  bool may_log(uint64_t* dropped);
  void* allocate(uint64_t size, uint64_t alignment, uint32_t flags);
  void release(void* block);
  bool charge(uint64_t bytes);
  uint32_t declare_counter(chimera_text name);
  uint32_t declare_histogram(chimera_text name, const double* bounds, uint32_t count);
  int32_t pack(const chimera_matrix_source& source, chimera_packed_matrix** out);
  void release_matrix(chimera_packed_matrix* matrix);
  void fill(const TensorView& tensor, chimera_tensor* out) const;

  const Options options_;
  chimera_host abi_{};
  std::atomic<uint64_t> used_{0};
  Mutex memory_mutex_;
  std::map<void*, uint64_t> blocks_ GUARDED_BY(memory_mutex_);                     // size of each
  std::map<chimera_packed_matrix*, uint64_t> matrices_ GUARDED_BY(memory_mutex_);  // charge of each
  Mutex log_mutex_;
  double log_tokens_ GUARDED_BY(log_mutex_);
  std::chrono::steady_clock::time_point log_refilled_ GUARDED_BY(log_mutex_);
  uint64_t log_dropped_ GUARDED_BY(log_mutex_) = 0;
  mutable Mutex metrics_mutex_;  // held while declaring; updates go by index below the counts
  std::array<Counter, CHIMERA_METRICS_MAX> counters_;
  std::array<Histogram, CHIMERA_METRICS_MAX> histograms_;
  std::atomic<uint32_t> counter_count_{0}, histogram_count_{0};
};

/// What the current thread does for a plugin; on the stack of the caller of a plugin function.
class PluginCallScope {
 public:
  /// A control call.
  explicit PluginCallScope(const PluginHost& host) : PluginCallScope(host, CHIMERA_ROLE_CONTROL) {}
  /// A forward call; `pool` may be used by the plugin, with `workers` of its threads at most.
  PluginCallScope(const PluginHost& host, ThreadPool& pool, uint32_t workers)
      : PluginCallScope(host, CHIMERA_ROLE_WORKER) {
    pool_ = &pool;
    workers_ = workers;
  }
  ~PluginCallScope();
  PluginCallScope(const PluginCallScope&) = delete;
  PluginCallScope& operator=(const PluginCallScope&) = delete;

  /// The status that a plugin function returned, with the text it attached; ok for 0. A number
  /// that is none becomes internal.
  Status status(int32_t returned, const std::string& what) const;

 private:
  friend struct PluginServices;
  PluginCallScope(const PluginHost& host, uint32_t role);

  const PluginHost* host_;
  const uint32_t role_;
  bool in_body_ = false;  // of parallel_for
  ThreadPool* pool_ = nullptr;
  uint32_t workers_ = 1;
  PluginCallScope* outer_;
  size_t error_size_ = 0;
  char error_[CHIMERA_ERROR_MAX_BYTES];  // deliberately not cleared: a forward call is short
};

}  // namespace chimera
