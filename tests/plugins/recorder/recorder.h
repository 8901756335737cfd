// Inside the recorder: what its two files share.
#pragma once

#include <atomic>
#include <string>

#include "chimera/services.h"

namespace recorder {

constexpr uint32_t kModel = 256, kMaxRows = 48, kScratch = 192, kLayers = 6;

enum class State : int { kBuilt, kIdle, kActive, kBroken, kGone };

struct Instance {
  chimera_expert abi;
  const chimera_host* host;
  uint32_t number;
  std::atomic<State> state;
  std::atomic<int> forwards;  // that run
  uint32_t max_rows, workers;
  bool fail_activate, fail_forward;
  const chimera_host_thread_check* thread_check;
  const chimera_host_metrics* metrics;
  const chimera_host_parallel* parallel;
  const chimera_host_memory* memory;
  const chimera_host_clock* clock;
  uint32_t counter, calls;  // metrics `breaches` and `calls`
  void* block;
  Instance* next;  // of all that were ever made
};

extern const chimera_expert_descriptor kDescriptor;

/// Appends one line of JSON: the members that `format` gives, behind time and thread.
void write_line(const char* format, ...) __attribute__((format(printf, 1, 2)));
void open_log(const std::string& path);
void breach(const Instance* instance, const char* call, const char* what);
void expect(bool holds, const Instance* instance, const char* call, const char* what);
void check_fpu(const Instance* instance, const char* call);
uint64_t breaches();

/// A control call: recorded, and no other may run meanwhile.
class Control {
 public:
  Control(const Instance* instance, const char* call);
  ~Control();
  Control(const Control&) = delete;
  Control& operator=(const Control&) = delete;

 private:
  const Instance* instance_;
  const char* call_;
};

chimera_expert* make_instance(const chimera_host* host, uint32_t number);
void forget_instance();

}  // namespace recorder
