// A plugin that computes y = x / 2 until it sins. Which sin, and after how many forward calls, is
// its configuration: "SIN N". N = 0: on rows that begin with kTrigger only.
//
// The sins are those that a process of its own must contain: test material for isolation, never for
// in-process use.
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include <atomic>
#include <cmath>
#include <cstdlib>
#include <cstring>
#include <limits>
#include <string>

#include "chimera/expert.hpp"
#include "chimera/services/cancel.h"
#include "chimera/services/metrics.h"
#include "chimera/services/weights.h"

#ifndef SINNER_WIDTH
#define SINNER_WIDTH 16
#endif
#ifndef SINNER_LAYERS
#define SINNER_LAYERS 2
#endif

namespace {

constexpr float kTrigger = 12345.0f;

const chimera_expert_layer kLayers[] = {{0, 1}, {1, 1},
#if SINNER_LAYERS == 6
                                        {2, 1}, {3, 1}, {4, 1},
                                        {5, 1}
#endif
};

int* volatile nowhere = nullptr;

void sleep_for_ever() {
  const timespec day{86400, 0};
  for (;;) nanosleep(&day, nullptr);
}

class Sinner final : public chimera::plugin::Expert {
 public:
  static const chimera_expert_descriptor descriptor;
  explicit Sinner(chimera::plugin::Host host) : Expert(host) {}

  void prepare(std::string_view config) override {
    const size_t space = config.find(' ');
    sin_ = config.substr(0, space);
    after_ =
        space == std::string_view::npos ? 0 : std::atoi(std::string(config.substr(space)).c_str());
    log_ = host().service<chimera_host_log>(CHIMERA_LOG_ID);
    cancel_ = host().service<chimera_host_cancel>(CHIMERA_CANCEL_ID);
    metrics_ = host().service<chimera_host_metrics>(CHIMERA_METRICS_ID);
    if (metrics_ != nullptr) counter_ = metrics_->counter(host().get(), CHIMERA_TEXT("rows"));
    if (sin_ == "crash_in_prepare") raise(SIGSEGV);
    if (sin_ == "fork_in_prepare") {
      for (int i = 0; i < 20; ++i) {
        const pid_t child = fork();
        if (child == 0) sleep_for_ever();
        children_ += child > 0 ? 1 : 0;
      }
    }
    if (sin_ == "refuse") throw chimera::plugin::Failure(CHIMERA_PERMISSION_DENIED, "no licence");
  }
  void activate(const chimera_expert_limits&) override {
    if (sin_ == "hang_in_activate") sleep_for_ever();
    if (sin_ == "scale") {  // no sin: a factor from the module's tensors
      chimera_tensor tensor{};
      tensor.struct_size = sizeof(tensor);
      const auto& weights = host().require<chimera_host_weights>(CHIMERA_WEIGHTS_ID);
      if (weights.find(host().get(), CHIMERA_TEXT("scale"), &tensor) != CHIMERA_OK) {
        throw chimera::plugin::Failure(CHIMERA_NOT_FOUND, "no tensor named scale");
      }
      std::memcpy(&factor_, tensor.data_borrowed, sizeof(factor_));
    }
  }
  void deactivate() noexcept override {
    if (sin_ == "hang_in_deactivate") sleep_for_ever();
    if (sin_ == "crash_in_deactivate") raise(SIGSEGV);
  }

  int32_t forward(const chimera_expert_batch& batch) override {
    ++calls_;
    for (uint32_t r = 0; r < batch.n_rows; ++r) {
      const float* x = chimera::plugin::input_row(batch, r);
      float* y = chimera::plugin::output_row(batch, r);
      for (int i = 0; i < SINNER_WIDTH; ++i) y[i] = factor_ * x[i];
    }
    if (sin_ == "epochs") {  // no sin: what it was told of each row, and of all
      for (uint32_t r = 0; r < batch.n_rows; ++r) {
        output(batch, r)[0] = static_cast<float>(chimera::plugin::row_epoch(batch, r));
        output(batch, r)[1] = static_cast<float>(batch.epoch);
      }
    }
    if (metrics_ != nullptr) metrics_->add(host().get(), counter_, batch.n_rows);
    const bool triggered = batch.n_rows > 0 && chimera::plugin::input_row(batch, 0)[0] == kTrigger;
    return (after_ > 0 ? calls_ > after_ : triggered) ? sin(batch) : CHIMERA_OK;
  }

 private:
  int32_t sin(const chimera_expert_batch& batch) {
    float* const y = chimera::plugin::output_row(batch, 0);
    if (sin_ == "segfault") *nowhere = 1;
    if (sin_ == "abort") std::abort();
    if (sin_ == "exit") std::exit(0);
    if (sin_ == "spin") {
      for (std::atomic<unsigned> i{0};; ++i) {
      }
    }
    if (sin_ == "sleep") sleep_for_ever();
    if (sin_ == "nap") {
      const timespec time{0, 20'000'000};
      nanosleep(&time, nullptr);
    }
    if (sin_ == "deadlock") {
      static pthread_mutex_t mutex = PTHREAD_MUTEX_INITIALIZER;
      for (;;) pthread_mutex_lock(&mutex);
    }
    if (sin_ == "flood") {
      for (int i = 0; i < 5000; ++i) {
        log_->write(host().get(), CHIMERA_LOG_INFO, CHIMERA_TEXT("look at me \x1b[31m"));
      }
    }
    if (sin_ == "write_past") output(batch, batch.n_rows)[0] = 1.0f;
    if (sin_ == "write_before") y[-1] = 1.0f;
    // From the start of what this process may write, for the second call, up to its rows.
    if (sin_ == "scribble") std::memset(reinterpret_cast<char*>(y) - 28736, 0x55, 28736);
    if (sin_ == "nan") y[3] = std::numeric_limits<float>::quiet_NaN();
    if (sin_ == "internal") return CHIMERA_INTERNAL;
    if (sin_ == "invalid") throw chimera::plugin::Failure(CHIMERA_INVALID_ARGUMENT, "not this row");
    if (sin_ == "gives_up") {
      while (cancel_->check(host().get(), &batch) == CHIMERA_OK) {
      }
      return cancel_->check(host().get(), &batch);
    }
    if (sin_ == "socket") socket(AF_INET, SOCK_STREAM, 0);
    if (sin_ == "fork" && fork() == 0) sleep_for_ever();
    if (sin_ == "close_socket") close(3);
    if (sin_ == "write_socket") (void)!write(3, "not a frame", 11);
    // These must fail and leave the process alive: the answer says whether they did.
    if (sin_ == "open") y[0] = open("/etc/passwd", O_RDONLY) < 0 ? 1.0f : 2.0f;
    if (sin_ == "thread") {
      pthread_t thread;
      const auto body = [](void*) -> void* { return nullptr; };
      y[0] = pthread_create(&thread, nullptr, body, nullptr) != 0 ? 1.0f : 2.0f;
    }
    if (sin_ == "fork_in_prepare") y[0] = static_cast<float>(children_);
    if (sin_ == "environment") y[0] = environ == nullptr || environ[0] == nullptr ? 1.0f : 2.0f;
    return CHIMERA_OK;
  }

  static float* output(const chimera_expert_batch& batch, uint32_t row) {
    return chimera::plugin::output_row(batch, row);
  }

  std::string sin_;
  float factor_ = 0.5f;
  int after_ = 0;
  int calls_ = 0;
  int children_ = 0;
  uint32_t counter_ = 0;
  const chimera_host_log* log_ = nullptr;
  const chimera_host_cancel* cancel_ = nullptr;
  const chimera_host_metrics* metrics_ = nullptr;
};

constexpr const char* kOptional[] = {CHIMERA_LOG_ID, CHIMERA_CANCEL_ID, CHIMERA_METRICS_ID,
                                     CHIMERA_WEIGHTS_ID};

const chimera_expert_descriptor Sinner::descriptor = {
    sizeof(chimera_expert_descriptor),
    0,
    "chimera.test.sinner",
    CHIMERA_TEXT("1.0.0"),
    CHIMERA_TEXT("Chimera tests"),
    CHIMERA_TEXT("Apache-2.0"),
    CHIMERA_TEXT("Computes y = x / 2 until it sins"),
    nullptr,
    0,
    {nullptr, 0},
    SINNER_WIDTH,
    0,
    kLayers,
    SINNER_LAYERS,
    CHIMERA_DTYPE_F32,
    CHIMERA_DTYPE_F32,
    64,
    0,
    CHIMERA_CONCURRENCY_SERIAL,
    CHIMERA_DETERMINISM_BITWISE,
    0,
    0,
    nullptr,
    0,
    kOptional,
    4,
    0,
    0};

}  // namespace

CHIMERA_EXPERT_NOTE("chimera.test.sinner", "1.0.0", "test");
CHIMERA_EXPERT_LIBRARY(CHIMERA_ENTRY_UNLOAD_CLEAN, Sinner);
