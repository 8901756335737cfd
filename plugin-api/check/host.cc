#include "check/host.h"

#include <cstdlib>
#include <cstring>
#include <ctime>
#include <thread>

#include "base/version.h"
#include "check/host_state.h"

namespace chimera::check {
namespace {

thread_local Call t_call = Call::kNone;
thread_local const void* t_host = nullptr;

constexpr const char* kServices[] = {
    CHIMERA_LOG_ID,          CHIMERA_ERROR_ID,  CHIMERA_MEMORY_ID, CHIMERA_WEIGHTS_ID,
    CHIMERA_PARALLEL_ID,     CHIMERA_MATMUL_ID, CHIMERA_CLOCK_ID,  CHIMERA_CANCEL_ID,
    CHIMERA_THREAD_CHECK_ID, CHIMERA_METRICS_ID};

Host& host_of(const chimera_host* abi) { return *static_cast<Host*>(abi->host_data_owned); }

std::string string_of(chimera_text text) {
  return text.size == 0 ? std::string() : std::string(text.data_borrowed, text.size);
}

uint64_t now_ns() {
  timespec t = {};
  clock_gettime(CLOCK_MONOTONIC, &t);
  return static_cast<uint64_t>(t.tv_sec) * 1000000000u + static_cast<uint64_t>(t.tv_nsec);
}

uint8_t role_of(Call call) {
  switch (call) {
    case Call::kNone:
      return ServiceCall::kForeign;
    case Call::kForward:
      return ServiceCall::kForward;
    case Call::kBody:
      return ServiceCall::kBody;
    default:
      return ServiceCall::kControl;
  }
}

std::string_view place_of(Call call) {
  constexpr std::string_view kPlaces[] = {
      "a thread of its own", "create", "prepare", "activate", "a control call", "forward",
      "a parallel_for body"};
  return kPlaces[static_cast<size_t>(call)];
}

// ---- log, error, clock, cancel, thread-check ----

void log_write(const chimera_host* host, uint32_t, chimera_text line) {
  ServiceCall call(host, "chimera.log/1 write", ServiceCall::kAny);
  const MutexLock lock(call.state.mutex);
  auto& a = call.state.accounts;
  ++a.log_lines;
  a.log_bytes += line.size;
  a.longest_line = std::max(a.longest_line, line.size);
}

void error_set(const chimera_host* host, chimera_text text) {
  ServiceCall call(host, "chimera.error/1 set", ServiceCall::kControl | ServiceCall::kForward);
  const MutexLock lock(call.state.mutex);
  call.state.accounts.last_error = string_of(text).substr(0, CHIMERA_ERROR_MAX_BYTES);
}

uint64_t clock_now(const chimera_host*) { return now_ns(); }

int32_t cancel_check(const chimera_host* host, const chimera_expert_batch* batch) {
  ServiceCall call(host, "chimera.cancel/1 check", ServiceCall::kForward | ServiceCall::kBody);
  if (batch->cancel_borrowed != nullptr &&
      __atomic_load_n(batch->cancel_borrowed, __ATOMIC_RELAXED)) {
    return CHIMERA_CANCELLED;
  }
  const bool late = batch->deadline_ns != 0 && now_ns() >= batch->deadline_ns;
  return late ? CHIMERA_DEADLINE_EXCEEDED : CHIMERA_OK;
}

uint32_t thread_role(const chimera_host* host) {
  if (t_host != static_cast<const void*>(&host_of(host))) return CHIMERA_ROLE_NONE;
  switch (t_call) {
    case Call::kNone:
      return CHIMERA_ROLE_NONE;
    case Call::kForward:
    case Call::kBody:
      return CHIMERA_ROLE_WORKER;
    default:
      return CHIMERA_ROLE_CONTROL;
  }
}

// ---- memory ----

void* memory_allocate(const chimera_host* host, uint64_t size, uint64_t alignment, uint32_t flags) {
  ServiceCall call(host, "chimera.memory/1 allocate", ServiceCall::kControl);
  if (alignment == 0) alignment = CHIMERA_ALIGNMENT;
  const bool possible = size > 0 && (alignment & (alignment - 1)) == 0 &&
                        alignment <= (uint64_t{2} << 20) &&
                        (flags & ~CHIMERA_MEMORY_HUGE_PAGES) == 0;
  return call.allowed && possible ? host_allocate(call, size, alignment) : nullptr;
}

void memory_release(const chimera_host* host, void* block) {
  ServiceCall call(host, "chimera.memory/1 release", ServiceCall::kControl);
  if (block != nullptr) host_release(call, block);
}

uint64_t memory_used(const chimera_host* host) {
  ServiceCall call(host, "chimera.memory/1 used_bytes", ServiceCall::kAny);
  const MutexLock lock(call.state.mutex);
  return call.state.accounts.used_bytes;
}

// ---- weights ----

struct TensorAt {
  const TensorFile* file;
  const FileTensor* tensor;
};

std::vector<TensorAt> sorted_tensors(const Subject& subject) {
  std::vector<TensorAt> all;
  for (const TensorFile& f : subject.tensor_files) {
    for (const FileTensor& t : f.tensors) all.push_back({&f, &t});
  }
  std::sort(all.begin(), all.end(),
            [](const TensorAt& a, const TensorAt& b) { return a.tensor->name < b.tensor->name; });
  return all;
}

/// Fills what the caller's structure covers; the data are a private copy before a guard page.
int32_t lend_tensor(ServiceCall& call, const TensorAt& at, chimera_tensor* out) {
  const FileTensor& t = *at.tensor;
  if (t.dtype == 0 || t.shape.size() > CHIMERA_TENSOR_MAX_RANK) return CHIMERA_UNIMPLEMENTED;
  const TensorFault fault =
      t.name == call.host.bad_tensor ? call.host.tensor_fault : TensorFault::kNone;
  chimera_tensor full = {};
  full.struct_size = out->struct_size;
  full.dtype = fault != TensorFault::kDtype   ? t.dtype
               : t.dtype == CHIMERA_DTYPE_I64 ? CHIMERA_DTYPE_U8
                                              : CHIMERA_DTYPE_I64;
  full.rank = static_cast<uint32_t>(t.shape.size());
  std::copy(t.shape.begin(), t.shape.end(), full.shape);
  full.byte_size = t.size;
  if (fault == TensorFault::kShort && full.rank > 0 && full.shape[0] > 0) {
    full.byte_size -= full.byte_size / full.shape[0];
    --full.shape[0];
  }
  const MutexLock lock(call.state.mutex);
  call.state.lent.push_back(std::make_unique<Guarded>("a tensor", full.byte_size, 64));
  Guarded& copy = *call.state.lent.back();
  std::memcpy(copy.data(), at.file->data(t).data(), full.byte_size);
  copy.read_only();
  full.data_borrowed = copy.data();
  full.name = {t.name.data(), t.name.size()};
  call.state.accounts.tensors.insert(t.name);
  std::memcpy(out, &full, std::min<size_t>(out->struct_size, sizeof(full)));
  return CHIMERA_OK;
}

uint64_t weights_count(const chimera_host* host) {
  ServiceCall call(host, "chimera.weights/1 count", ServiceCall::kControl);
  const bool one_less = call.host.tensor_fault == TensorFault::kMissing;
  const uint64_t all = sorted_tensors(call.host.context().subject).size();
  return one_less && all > 0 ? all - 1 : all;
}

int32_t weights_at(const chimera_host* host, uint64_t index, chimera_tensor* out) {
  ServiceCall call(host, "chimera.weights/1 at", ServiceCall::kControl);
  if (!call.allowed) return CHIMERA_FAILED_PRECONDITION;
  auto all = sorted_tensors(call.host.context().subject);
  if (call.host.tensor_fault == TensorFault::kMissing) {
    std::erase_if(all, [&](const TensorAt& t) { return t.tensor->name == call.host.bad_tensor; });
  }
  return index < all.size() ? lend_tensor(call, all[index], out) : CHIMERA_NOT_FOUND;
}

int32_t weights_find(const chimera_host* host, chimera_text name, chimera_tensor* out) {
  ServiceCall call(host, "chimera.weights/1 find", ServiceCall::kControl);
  if (!call.allowed) return CHIMERA_FAILED_PRECONDITION;
  const std::string wanted = string_of(name);
  if (call.host.tensor_fault == TensorFault::kMissing && wanted == call.host.bad_tensor) {
    return CHIMERA_NOT_FOUND;
  }
  for (const TensorFile& file : call.host.context().subject.tensor_files) {
    if (const FileTensor* t = file.find(wanted)) return lend_tensor(call, {&file, t}, out);
  }
  return CHIMERA_NOT_FOUND;
}

// ---- parallel ----

void run_body(Host& host, chimera_parallel_body body, void* context, uint32_t index,
              uint32_t worker) {
  const CallScope scope(Call::kBody, &host);
  const Inside inside;
  body(context, index, worker);
}

void run_threads(Host& host, uint32_t count, chimera_parallel_body body, void* context) {
  std::atomic<uint32_t> next{0};
  const auto work = [&](uint32_t worker) {
    for (uint32_t i = next.fetch_add(1); i < count; i = next.fetch_add(1)) {
      run_body(host, body, context, i, worker);
    }
  };
  std::vector<std::thread> threads;
  for (uint32_t w = 1; w < host.workers; ++w) threads.emplace_back(work, w);
  work(0);
  for (std::thread& t : threads) t.join();
}

int32_t parallel_run(const chimera_host* abi, uint32_t count, chimera_parallel_body body,
                     void* context) {
  const Call from = t_call;
  ServiceCall call(abi, "chimera.parallel/1 run", ServiceCall::kForward);
  Host& host = call.host;
  {
    const MutexLock lock(call.state.mutex);
    ++call.state.accounts.parallel_runs;
  }
  if (from != Call::kForward || host.parallel == Parallel::kRefused) {
    return CHIMERA_FAILED_PRECONDITION;
  }
  switch (host.parallel) {
    case Parallel::kThreads:
      run_threads(host, count, body, context);
      break;
    case Parallel::kReversed:
      for (uint32_t i = count; i-- > 0;) run_body(host, body, context, i, host.workers - 1);
      break;
    default:
      for (uint32_t i = 0; i < count; ++i) run_body(host, body, context, i, 0);
  }
  return CHIMERA_OK;
}

// ---- metrics ----

bool metric_name(const std::string& name) {
  return !name.empty() && name.size() <= 63 && name[0] >= 'a' && name[0] <= 'z' &&
         name.find_first_not_of("abcdefghijklmnopqrstuvwxyz0123456789_") == std::string::npos;
}

uint32_t declare(ServiceCall& call, std::map<std::string, uint32_t>& all, chimera_text name)
    REQUIRES(call.state.mutex) {
  const std::string text = string_of(name);
  if (const auto it = all.find(text); it != all.end()) return it->second;
  if (!call.allowed || !metric_name(text) || all.size() >= CHIMERA_METRICS_MAX) return 0;
  const auto handle = static_cast<uint32_t>(all.size() + 1);
  all.emplace(text, handle);
  return handle;
}

uint32_t metrics_counter(const chimera_host* host, chimera_text name) {
  ServiceCall call(host, "chimera.metrics/1 counter", ServiceCall::kControl);
  const MutexLock lock(call.state.mutex);
  return declare(call, call.state.counters, name);
}
uint32_t metrics_histogram(const chimera_host* host, chimera_text name, const double*, uint32_t n) {
  ServiceCall call(host, "chimera.metrics/1 histogram", ServiceCall::kControl);
  if (n > CHIMERA_METRICS_MAX_BOUNDS) return 0;
  const MutexLock lock(call.state.mutex);
  return declare(call, call.state.histograms, name);
}
void metrics_add(const chimera_host*, uint32_t, uint64_t) {}
void metrics_observe(const chimera_host*, uint32_t, double) {}

const void* get_service(const chimera_host* abi, const char* id);

}  // namespace

// The services have no lock of their own against the plugin; the accounts do.
ServiceCall::ServiceCall(const chimera_host* abi, const char* function, uint8_t roles)
    : host(host_of(abi)), state(HostServices::state(host)) {
  if (t_call == Call::kCreate) {
    const MutexLock lock(state.mutex);
    state.accounts.calls_in_create.push_back(function);
    return;
  }
  allowed = (role_of(t_call) & roles) != 0;
  if (allowed) return;
  const std::string text = fmt::format("{} from {}", function, place_of(t_call));
  const MutexLock lock(state.mutex);
  auto& all = state.accounts.violations;
  if (std::find(all.begin(), all.end(), text) == all.end()) all.push_back(text);
}

void* host_allocate(ServiceCall& call, uint64_t size, uint64_t alignment) {
  const MutexLock lock(call.state.mutex);
  auto& a = call.state.accounts;
  const bool failing = ++a.allocations == call.host.fail_allocation;
  if (failing || size > call.host.memory_cap - std::min(call.host.memory_cap, a.used_bytes)) {
    return nullptr;
  }
  const uint64_t rounded = (size + alignment - 1) / alignment * alignment;
  void* block = rounded < size ? nullptr : std::aligned_alloc(alignment, rounded);
  if (block == nullptr) return nullptr;
  std::memset(block, 0, size);
  call.state.blocks[block] = size;
  ++a.blocks;
  a.used_bytes += size;
  return block;
}

bool host_release(ServiceCall& call, void* block) {
  const MutexLock lock(call.state.mutex);
  const auto it = call.state.blocks.find(block);
  if (it == call.state.blocks.end()) {
    call.state.accounts.violations.push_back("release of a block that is not allocated");
    return false;
  }
  --call.state.accounts.blocks;
  call.state.accounts.used_bytes -= it->second;
  call.state.blocks.erase(it);
  std::free(block);
  return true;
}

namespace {

const void* service_named(Host::Impl& s, std::string_view id) {
  const std::pair<const char*, const void*> all[] = {{CHIMERA_LOG_ID, &s.log},
                                                     {CHIMERA_ERROR_ID, &s.error},
                                                     {CHIMERA_MEMORY_ID, &s.memory},
                                                     {CHIMERA_WEIGHTS_ID, &s.weights},
                                                     {CHIMERA_PARALLEL_ID, &s.parallel},
                                                     {CHIMERA_MATMUL_ID, &s.matmul},
                                                     {CHIMERA_CLOCK_ID, &s.clock},
                                                     {CHIMERA_CANCEL_ID, &s.cancel},
                                                     {CHIMERA_THREAD_CHECK_ID, &s.thread_check},
                                                     {CHIMERA_METRICS_ID, &s.metrics}};
  for (const auto& [name, service] : all) {
    if (id == name) return service;
  }
  return nullptr;
}

const void* get_service(const chimera_host* abi, const char* id) {
  // From forward too: the C++ wrapper looks up chimera.error/1 when a call fails.
  ServiceCall call(abi, "get_service", ServiceCall::kControl | ServiceCall::kForward);
  {
    const MutexLock lock(call.state.mutex);
    call.state.accounts.asked.insert(id);
  }
  return call.host.missing.count(id) != 0 ? nullptr : service_named(call.state, id);
}

template <class T>
void set(Padded<T>& padded, const T& value) {
  std::memset(&padded, 0xa5, sizeof(padded));
  std::memcpy(&padded.value, &value, sizeof(T));
}

}  // namespace

Host::Host(Context& context) : context_(context), impl_(std::make_unique<Impl>()) {
  Impl& s = *impl_;
  set(s.host, {sizeof(chimera_host),
               CHIMERA_ABI_MAJOR,
               CHIMERA_ABI_MINOR,
               CHIMERA_TEXT("chimera-plugin-check"),
               {version(), std::strlen(version())},
               this,
               get_service});
  set(s.log, {sizeof(chimera_host_log), 0, log_write});
  set(s.error, {sizeof(chimera_host_error), 0, error_set});
  set(s.memory, {sizeof(chimera_host_memory), 0, memory_allocate, memory_release, memory_used});
  set(s.weights, {sizeof(chimera_host_weights), 0, weights_count, weights_at, weights_find});
  set(s.parallel, {sizeof(chimera_host_parallel), 0, parallel_run});
  set(s.matmul, matmul_service());
  set(s.clock, {sizeof(chimera_host_clock), 0, clock_now});
  set(s.cancel, {sizeof(chimera_host_cancel), 0, cancel_check});
  set(s.thread_check, {sizeof(chimera_host_thread_check), 0, thread_role});
  set(s.metrics, {sizeof(chimera_host_metrics), 0, metrics_counter, metrics_histogram, metrics_add,
                  metrics_observe});
  abi_ = &s.host.value;
  if (context.subject.manifest) memory_cap = context.subject.manifest->memory_bytes;
}

Host::~Host() {
  for (const auto& [block, size] : impl_->blocks) std::free(block);
}

Host::Accounts Host::accounts() const {
  const MutexLock lock(impl_->mutex);
  return impl_->accounts;
}

void Host::forget_error() {
  const MutexLock lock(impl_->mutex);
  impl_->accounts.last_error.clear();
}

void Host::revoke_tensors() {
  const MutexLock lock(impl_->mutex);
  impl_->revoked = std::move(impl_->lent);  // those of the time before are seen no longer
  impl_->lent.clear();
  for (auto& tensor : impl_->revoked) tensor->revoke();
}

void Host::pretend_newer(uint16_t minor) {
  Impl& s = *impl_;
  s.host.value.abi_minor = minor;
  const auto longer = [](auto& padded) {
    padded.value.struct_size += static_cast<uint32_t>(sizeof(padded.beyond));
  };
  longer(s.host), longer(s.log), longer(s.error), longer(s.memory), longer(s.weights);
  longer(s.parallel), longer(s.matmul), longer(s.clock), longer(s.cancel), longer(s.thread_check);
  longer(s.metrics);
}

std::span<const char* const> all_services() { return kServices; }

CallScope::CallScope(Call call, const void* host) : call_before_(t_call), host_before_(t_host) {
  t_call = call;
  t_host = host;
}
CallScope::~CallScope() {
  t_call = call_before_;
  t_host = host_before_;
}
Call current_call() { return t_call; }

}  // namespace chimera::check
