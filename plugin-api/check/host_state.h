// The inside of the checker's host, shared by host.cc and host_matmul.cc only.
//
// Thread safety: as host.h says.
#pragma once

#include <algorithm>

#include "base/threads/mutex.h"
#include "check/host.h"
#include "check/watch.h"

struct chimera_packed_matrix {
  uint64_t rows, cols;
  float* data;  // [rows, cols], behind this header
};

namespace chimera::check {

/// Rubbish behind every structure, for plugins that read past struct_size.
template <class T>
struct Padded {
  T value;
  unsigned char beyond[64];
};

struct Host::Impl {
  mutable Mutex mutex;
  Accounts accounts GUARDED_BY(mutex);
  std::map<void*, uint64_t> blocks GUARDED_BY(mutex);               // of memory/1 and matmul/1
  std::vector<std::unique_ptr<Guarded>> lent GUARDED_BY(mutex);     // tensor data
  std::vector<std::unique_ptr<Guarded>> revoked GUARDED_BY(mutex);  // likewise
  std::map<std::string, uint32_t> counters GUARDED_BY(mutex);
  std::map<std::string, uint32_t> histograms GUARDED_BY(mutex);

  Padded<chimera_host> host;
  Padded<chimera_host_log> log;
  Padded<chimera_host_error> error;
  Padded<chimera_host_memory> memory;
  Padded<chimera_host_weights> weights;
  Padded<chimera_host_parallel> parallel;
  Padded<chimera_host_matmul> matmul;
  Padded<chimera_host_clock> clock;
  Padded<chimera_host_cancel> cancel;
  Padded<chimera_host_thread_check> thread_check;
  Padded<chimera_host_metrics> metrics;
};

struct HostServices {
  static Host::Impl& state(Host& host) { return *host.impl_; }
};

/// What every service function begins with: the calling thread is in the host again, and the call
/// is entered into the accounts when its role does not allow it.
class ServiceCall {
 public:
  enum Roles : uint8_t { kControl = 1, kForward = 2, kBody = 4, kForeign = 8, kAny = 15 };
  ServiceCall(const chimera_host* host, const char* function, uint8_t allowed);

  Host& host;
  Host::Impl& state;
  bool allowed = true;

 private:
  Inside inside_{false};
};

/// Memory of the host for a plugin, accounted; null when it shall fail.
void* host_allocate(ServiceCall& call, uint64_t size, uint64_t alignment);
/// False when `block` is none of host_allocate.
bool host_release(ServiceCall& call, void* block);

/// The functions of chimera.matmul/1.
chimera_host_matmul matmul_service();

}  // namespace chimera::check
