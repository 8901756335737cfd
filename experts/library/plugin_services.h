// The C functions behind the services of a PluginHost; its friend. One table per service, in the
// file of its concern: plugin_services.cc, plugin_memory.cc, plugin_compute.cc, plugin_metrics.cc.
//
// Thread safety: as the tags of the functions of the ABI say.
#pragma once

#include "experts/library/plugin_host.h"

namespace chimera {

struct PluginServices {
  static const void* get_service(const chimera_host* host, const char* id);
  static PluginHost& of(const chimera_host* host) {
    return *static_cast<PluginHost*>(host->host_data_owned);
  }
  /// The innermost call into a plugin on this thread; null when there is none.
  static PluginCallScope*& current();
  /// The current call if it is one of this host's plugin.
  static PluginCallScope* call_of(const chimera_host* host) {
    PluginCallScope* call = current();
    return call != nullptr && call->host_ == &of(host) ? call : nullptr;
  }

  static void log_write(const chimera_host* host, uint32_t severity, chimera_text line);
  static void error_set(const chimera_host* host, chimera_text text);
  static uint64_t clock_ns(const chimera_host* host);
  static int32_t cancel_check(const chimera_host* host, const chimera_expert_batch* batch);
  static uint32_t thread_role(const chimera_host* host);

  static void* allocate(const chimera_host* host, uint64_t size, uint64_t alignment,
                        uint32_t flags);
  static void release(const chimera_host* host, void* block);
  static uint64_t used_bytes(const chimera_host* host);
  static uint64_t tensor_count(const chimera_host* host);
  static int32_t tensor_at(const chimera_host* host, uint64_t index, chimera_tensor* out);
  static int32_t tensor_find(const chimera_host* host, chimera_text name, chimera_tensor* out);

  static int32_t parallel_run(const chimera_host* host, uint32_t count, chimera_parallel_body body,
                              void* context);
  static int32_t matmul_pack(const chimera_host* host, const chimera_matrix_source* source,
                             chimera_packed_matrix** out);
  static void matmul_release(const chimera_host* host, chimera_packed_matrix* matrix);
  static int32_t matmul_multiply(const chimera_host* host, const chimera_packed_matrix* matrix,
                                 const float* x, uint64_t x_stride, uint32_t n_rows, uint64_t begin,
                                 uint64_t end, float* y, uint64_t y_stride);
  static void matmul_swiglu(const chimera_host* host, float* gate, const float* up, uint64_t n);

  static uint32_t metrics_counter(const chimera_host* host, chimera_text name);
  static uint32_t metrics_histogram(const chimera_host* host, chimera_text name,
                                    const double* bounds, uint32_t count);
  static void metrics_add(const chimera_host* host, uint32_t counter, uint64_t amount);
  static void metrics_observe(const chimera_host* host, uint32_t histogram, double value);
};

}  // namespace chimera
