// get_service and the small services: log, error, clock, cancel, thread-check.
#include "experts/library/plugin_services.h"

#include <algorithm>
#include <cstring>

#include "base/steady_time.h"

namespace chimera {
namespace {

using S = PluginServices;

constexpr chimera_host_log kLog{sizeof(chimera_host_log), 0, S::log_write};
constexpr chimera_host_error kError{sizeof(chimera_host_error), 0, S::error_set};
constexpr chimera_host_memory kMemory{sizeof(chimera_host_memory), 0, S::allocate, S::release,
                                      S::used_bytes};
constexpr chimera_host_weights kWeights{sizeof(chimera_host_weights), 0, S::tensor_count,
                                        S::tensor_at, S::tensor_find};
constexpr chimera_host_parallel kParallel{sizeof(chimera_host_parallel), 0, S::parallel_run};
constexpr chimera_host_matmul kMatmul{sizeof(chimera_host_matmul),
                                      0,
                                      S::matmul_pack,
                                      S::matmul_release,
                                      S::matmul_multiply,
                                      S::matmul_swiglu};
constexpr chimera_host_clock kClock{sizeof(chimera_host_clock), 0, S::clock_ns};
constexpr chimera_host_cancel kCancel{sizeof(chimera_host_cancel), 0, S::cancel_check};
constexpr chimera_host_thread_check kThreadCheck{sizeof(chimera_host_thread_check), 0,
                                                 S::thread_role};
constexpr chimera_host_metrics kMetrics{sizeof(chimera_host_metrics),
                                        0,
                                        S::metrics_counter,
                                        S::metrics_histogram,
                                        S::metrics_add,
                                        S::metrics_observe};

struct Service {
  const char* id;
  const void* table;
};
constexpr Service kServices[] = {
    {CHIMERA_LOG_ID, &kLog},           {CHIMERA_ERROR_ID, &kError},
    {CHIMERA_MEMORY_ID, &kMemory},     {CHIMERA_WEIGHTS_ID, &kWeights},
    {CHIMERA_PARALLEL_ID, &kParallel}, {CHIMERA_MATMUL_ID, &kMatmul},
    {CHIMERA_CLOCK_ID, &kClock},       {CHIMERA_CANCEL_ID, &kCancel},
    {CHIMERA_METRICS_ID, &kMetrics},   {CHIMERA_THREAD_CHECK_ID, &kThreadCheck},
};

}  // namespace

bool has_plugin_service(const char* id) {
  return PluginServices::get_service(nullptr, id) != nullptr;
}

const void* PluginServices::get_service(const chimera_host*, const char* id) {
  if (id == nullptr) return nullptr;
  for (const Service& service : kServices) {
    if (std::strcmp(service.id, id) == 0) return service.table;
  }
  return nullptr;
}

void PluginServices::log_write(const chimera_host* host, uint32_t severity, chimera_text line) {
  of(host).write_log(severity, line);
}

void PluginServices::error_set(const chimera_host* host, chimera_text text) {
  PluginCallScope* call = call_of(host);
  if (call == nullptr || call->in_body_ || text.data_borrowed == nullptr) return;
  call->error_size_ = std::min<uint64_t>(text.size, sizeof(call->error_));
  std::memcpy(call->error_, text.data_borrowed, call->error_size_);
}

uint64_t PluginServices::clock_ns(const chimera_host*) { return steady_now_ns(); }

int32_t PluginServices::cancel_check(const chimera_host*, const chimera_expert_batch* batch) {
  if (batch == nullptr) return CHIMERA_INVALID_ARGUMENT;
  if (batch->cancel_borrowed != nullptr &&
      __atomic_load_n(batch->cancel_borrowed, __ATOMIC_RELAXED) != 0) {
    return CHIMERA_CANCELLED;
  }
  if (batch->deadline_ns != 0 && steady_now_ns() > batch->deadline_ns)
    return CHIMERA_DEADLINE_EXCEEDED;
  return CHIMERA_OK;
}

uint32_t PluginServices::thread_role(const chimera_host* host) {
  const PluginCallScope* call = call_of(host);
  return call == nullptr ? CHIMERA_ROLE_NONE : call->role_;
}

}  // namespace chimera
