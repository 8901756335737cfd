// The recorder's instance: the seven functions.
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <new>

#include "recorder.h"

namespace recorder {

namespace {

constexpr chimera_expert_layer kServed[kLayers] = {{0, 1}, {1, 1}, {2, 1}, {3, 1}, {4, 1}, {5, 1}};
const char* const kOptional[] = {CHIMERA_THREAD_CHECK_ID, CHIMERA_METRICS_ID, CHIMERA_PARALLEL_ID,
                                 CHIMERA_MEMORY_ID, CHIMERA_CLOCK_ID};

std::atomic<Instance*> g_all{nullptr};  // keeps them reachable, for leak checkers

Instance& of(chimera_expert* self) { return *static_cast<Instance*>(self->plugin_data_owned); }

template <class T>
const T* service(const Instance& i, const char* id) {
  return static_cast<const T*>(i.host->get_service(i.host, id));
}

void expect_role(const Instance& i, uint32_t role, const char* call) {
  if (i.thread_check == nullptr) return;
  expect(i.thread_check->role(i.host) == role, &i, call,
         "chimera.thread-check/1 says another role");
}

void expect_state(const Instance& i, State state, const char* call) {
  expect(i.state.load() == state, &i, call, "not in the state for it");
  expect(i.forwards.load() == 0, &i, call, "forward is running");
}

std::string value_of(const std::string& config, const std::string& key) {
  const size_t at = config.find(key + "=");
  if (at == std::string::npos) return {};
  const size_t begin = at + key.size() + 1;
  return config.substr(begin, config.find_first_of(" \n", begin) - begin);
}

void body_outside(void*, uint32_t, uint32_t) {}

int32_t prepare(chimera_expert* self, chimera_text text) {
  Instance& i = of(self);
  const std::string config(text.size == 0 ? "" : text.data_borrowed, text.size);
  if (const std::string path = value_of(config, "log"); !path.empty()) open_log(path);
  i.thread_check = service<chimera_host_thread_check>(i, CHIMERA_THREAD_CHECK_ID);
  i.metrics = service<chimera_host_metrics>(i, CHIMERA_METRICS_ID);
  i.parallel = service<chimera_host_parallel>(i, CHIMERA_PARALLEL_ID);
  i.memory = service<chimera_host_memory>(i, CHIMERA_MEMORY_ID);
  i.clock = service<chimera_host_clock>(i, CHIMERA_CLOCK_ID);
  if (i.metrics != nullptr) {
    i.counter = i.metrics->counter(i.host, CHIMERA_TEXT("breaches"));
    i.calls = i.metrics->counter(i.host, CHIMERA_TEXT("calls"));
    i.metrics->add(i.host, i.counter, breaches());
  }
  const Control control(&i, "prepare");
  expect_state(i, State::kBuilt, "prepare");
  expect_role(i, CHIMERA_ROLE_CONTROL, "prepare");
  const std::string fail = value_of(config, "fail");
  i.fail_activate = fail == "activate";
  i.fail_forward = fail == "forward";
  if (fail == "prepare") {
    i.state = State::kBroken;
    return CHIMERA_INVALID_ARGUMENT;
  }
  i.state = State::kIdle;
  return CHIMERA_OK;
}

void check_memory(Instance& i) {
  if (i.memory == nullptr) return;
  i.block = i.memory->allocate(i.host, 1000, 256, 0);
  if (i.block == nullptr) return;
  const auto* bytes = static_cast<const unsigned char*>(i.block);
  bool zero = reinterpret_cast<uintptr_t>(i.block) % 256 == 0;
  for (int n = 0; n < 1000; ++n) zero = zero && bytes[n] == 0;
  expect(zero, &i, "activate", "memory of the host is not aligned and zeroed");
  expect(i.memory->used_bytes(i.host) >= 1000, &i, "activate", "memory is not accounted");
}

int32_t activate(chimera_expert* self, const chimera_expert_limits* limits) {
  Instance& i = of(self);
  const Control control(&i, "activate");
  expect_state(i, State::kIdle, "activate");
  expect_role(i, CHIMERA_ROLE_CONTROL, "activate");
  check_fpu(&i, "activate");
  expect(limits->struct_size >= sizeof(*limits), &i, "activate", "struct_size is too small");
  expect(limits->max_rows >= 1 && limits->max_rows <= kMaxRows, &i, "activate", "limits.max_rows");
  expect(limits->worker_count >= 1 && limits->worker_count <= CHIMERA_MAX_WORKERS, &i, "activate",
         "limits.worker_count");
  expect(limits->max_concurrent == 1, &i, "activate", "limits.max_concurrent of the serial class");
  if (i.parallel != nullptr) {
    expect(i.parallel->run(i.host, 1, body_outside, nullptr) == CHIMERA_FAILED_PRECONDITION, &i,
           "activate", "chimera.parallel/1 runs outside forward");
  }
  if (i.fail_activate) return CHIMERA_RESOURCE_EXHAUSTED;
  check_memory(i);
  i.max_rows = limits->max_rows;
  i.workers = limits->worker_count;
  i.state = State::kActive;
  return CHIMERA_OK;
}

bool aligned(const void* pointer) {
  return reinterpret_cast<uintptr_t>(pointer) % CHIMERA_ALIGNMENT == 0;
}

/// Pointers, strides, padding and scratch memory of a batch.
void check_rows(const Instance& i, const chimera_expert_batch& b) {
  const char* call = "forward";
  const uint64_t row = kModel * sizeof(float);
  expect(b.n_rows == 0 || (b.x_borrowed != nullptr && b.y_borrowed != nullptr), &i, call,
         "no rows");
  expect(aligned(b.x_borrowed) && aligned(b.y_borrowed), &i, call, "x or y is not aligned");
  expect(b.x_stride >= row && b.x_stride % CHIMERA_ALIGNMENT == 0, &i, call, "x_stride");
  expect(b.y_stride >= row && b.y_stride % CHIMERA_ALIGNMENT == 0, &i, call, "y_stride");
  expect(aligned(b.scratch_borrowed) && b.scratch_size >= kScratch, &i, call, "scratch memory");
  expect(b.worker_count <= 1 || b.scratch_stride >= b.scratch_size, &i, call, "scratch_stride");
  const auto* x = static_cast<const unsigned char*>(b.x_borrowed);
  auto* y = static_cast<unsigned char*>(b.y_borrowed);
  expect(b.n_rows == 0 || x + b.n_rows * b.x_stride <= y || y + b.n_rows * b.y_stride <= x, &i,
         call, "x and y overlap");
  for (uint32_t r = 0; r < b.n_rows; ++r) {
    for (uint64_t at = row; at < b.x_stride; ++at) {
      if (x[r * b.x_stride + at] != 0) return breach(&i, call, "the padding of x is not zero");
    }
    // The rest of a row may be written, up to its stride.
    std::memset(y + r * b.y_stride, 0, b.y_stride);
  }
  for (uint32_t w = 0; w < b.worker_count; ++w) {
    std::memset(static_cast<unsigned char*>(b.scratch_borrowed) + w * b.scratch_stride, 0x5a,
                b.scratch_size);
  }
}

void check_batch(const Instance& i, const chimera_expert_batch& b) {
  const char* call = "forward";
  expect(b.struct_size >= sizeof(b), &i, call, "struct_size is too small");
  expect(b.layer < kLayers && b.expert == 0, &i, call, "a layer or expert that it has not");
  expect(b.n_rows <= i.max_rows, &i, call, "more rows than limits.max_rows");
  expect(b.input_dtype == CHIMERA_DTYPE_F32 && b.output_dtype == CHIMERA_DTYPE_F32, &i, call,
         "dtype");
  expect(b.worker_count >= 1 && b.worker_count <= i.workers, &i, call, "worker_count");
  check_fpu(&i, call);
  expect_role(i, CHIMERA_ROLE_WORKER, call);
  check_rows(i, b);
}

struct Bodies {
  const Instance* instance;
  uint32_t workers;
  std::atomic<uint32_t> ran[64];
  std::atomic<int> busy[CHIMERA_MAX_WORKERS];
};

void body(void* context, uint32_t index, uint32_t worker) {
  auto& b = *static_cast<Bodies*>(context);
  const Instance& i = *b.instance;
  if (index >= 64 || worker >= b.workers) return breach(&i, "body", "index or worker out of range");
  expect(b.busy[worker].fetch_add(1) == 0, &i, "body", "two bodies of one worker overlap");
  b.ran[index].fetch_add(1);
  expect_role(i, CHIMERA_ROLE_WORKER, "body");
  expect(i.parallel->run(i.host, 1, body_outside, nullptr) == CHIMERA_FAILED_PRECONDITION, &i,
         "body", "chimera.parallel/1 can be nested");
  b.busy[worker].fetch_sub(1);
}

void check_parallel(const Instance& i, const chimera_expert_batch& batch) {
  if (i.parallel == nullptr) return;
  Bodies bodies = {};
  bodies.instance = &i;
  bodies.workers = batch.worker_count;
  const int32_t status = i.parallel->run(i.host, 64, body, &bodies);
  expect(status == CHIMERA_OK, &i, "forward", "chimera.parallel/1 refuses inside forward");
  for (const auto& ran : bodies.ran) {
    if (ran.load() != (status == CHIMERA_OK ? 1u : 0u)) {
      return breach(&i, "forward", "a body ran more or less than once");
    }
  }
}

int32_t forward(chimera_expert* self, const chimera_expert_batch* batch) {
  Instance& i = of(self);
  write_line("\"event\":\"forward\",\"instance\":%u,\"layer\":%u,\"rows\":%u,\"workers\":%u",
             i.number, batch->layer, batch->n_rows, batch->worker_count);
  expect(i.forwards.fetch_add(1) == 0, &i, "forward", "calls of the serial class overlap");
  const bool active = i.state.load() == State::kActive;
  expect(active, &i, "forward", "not active");
  int32_t status = CHIMERA_INVALID_ARGUMENT;
  if (active) {
    if (i.metrics != nullptr) i.metrics->add(i.host, i.calls, 1);
    check_batch(i, *batch);
    check_parallel(i, *batch);
    status = i.fail_forward ? CHIMERA_INTERNAL : CHIMERA_OK;
    if (i.fail_forward) i.state = State::kBroken;
  }
  i.forwards.fetch_sub(1);
  write_line("\"event\":\"forward-end\",\"instance\":%u", i.number);
  return status;
}

int32_t reset(chimera_expert* self) {
  const Control control(&of(self), "reset");
  expect_state(of(self), State::kActive, "reset");
  return CHIMERA_OK;
}

void deactivate(chimera_expert* self) {
  Instance& i = of(self);
  const Control control(&i, "deactivate");
  // After a forward that returned internal the instance is poisoned, and still active.
  expect(i.state.load() == State::kActive || (i.fail_forward && i.state.load() == State::kBroken),
         &i, "deactivate", "not active");
  expect(i.forwards.load() == 0, &i, "deactivate", "forward is running");
  expect_role(i, CHIMERA_ROLE_CONTROL, "deactivate");
  if (i.memory != nullptr) i.memory->release(i.host, i.block);
  i.block = nullptr;
  i.state = State::kIdle;
}

void destroy(chimera_expert* self) {
  Instance& i = of(self);
  const Control control(&i, "destroy");
  const State state = i.state.load();
  expect(state == State::kBuilt || state == State::kIdle ||
             (state == State::kBroken && !i.fail_forward),
         &i, "destroy", "active or gone");
  i.state = State::kGone;
  i.thread_check = nullptr;  // the host may go
  i.metrics = nullptr;
  forget_instance();
}

const void* get_extension(chimera_expert* self, const char*) {
  expect(of(self).state.load() != State::kGone, &of(self), "get_extension", "after destroy");
  return nullptr;
}

}  // namespace

const chimera_expert_descriptor kDescriptor = {sizeof(chimera_expert_descriptor),
                                               0,
                                               "org.chimera.recorder",
                                               CHIMERA_TEXT("1.0.0"),
                                               CHIMERA_TEXT("Chimera"),
                                               CHIMERA_TEXT("Apache-2.0"),
                                               CHIMERA_TEXT("Watches its host"),
                                               nullptr,
                                               0,
                                               {nullptr, 0},
                                               kModel,
                                               0,
                                               kServed,
                                               kLayers,
                                               CHIMERA_DTYPE_F32,
                                               CHIMERA_DTYPE_F32,
                                               kMaxRows,
                                               0,
                                               CHIMERA_CONCURRENCY_SERIAL,
                                               CHIMERA_DETERMINISM_BITWISE,
                                               kScratch,
                                               0,
                                               nullptr,
                                               0,
                                               kOptional,
                                               5,
                                               0,
                                               0};

chimera_expert* make_instance(const chimera_host* host, uint32_t number) {
  auto* i = new (std::nothrow) Instance{};  // never freed, see recorder.cc
  if (i == nullptr) return nullptr;
  i->abi = {sizeof(chimera_expert),
            0,
            &kDescriptor,
            i,
            prepare,
            activate,
            forward,
            reset,
            deactivate,
            destroy,
            get_extension};
  i->host = host;
  i->next = g_all.exchange(i);
  i->number = number;
  return &i->abi;
}

}  // namespace recorder
