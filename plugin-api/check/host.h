// The checker's host: every service of ABI 1.1, with accounts of how they are used and switches
// that make them fail.
//
// Thread safety: services may be called from any thread, as the contract has it; switches are set
// while no call is inside the plugin.
#pragma once

#include <array>
#include <atomic>
#include <cstdint>
#include <map>
#include <memory>
#include <set>
#include <string>
#include <string_view>
#include <vector>

#include "check/cases/case.h"
#include "check/guarded.h"
#include "chimera/services.h"

namespace chimera::check {

/// What a call into the plugin is, towards the services.
enum class Call : uint8_t { kNone, kCreate, kPrepare, kActivate, kControl, kForward, kBody };

/// How chimera.parallel/1 runs bodies.
enum class Parallel : uint8_t { kInline, kReversed, kThreads, kRefused };

/// How chimera.weights/1 lies about one tensor.
enum class TensorFault : uint8_t { kNone, kMissing, kShort, kDtype };

/// The ids of all services of ABI 1.1.
std::span<const char* const> all_services();

class Host {
 public:
  explicit Host(Context& context);
  ~Host();
  Host(const Host&) = delete;
  Host& operator=(const Host&) = delete;

  const chimera_host* abi() const { return abi_; }
  Context& context() { return context_; }

  // Switches.
  std::set<std::string> missing;  // services that it does not have
  uint64_t memory_cap = UINT64_MAX;
  uint64_t fail_allocation = 0;  // the n-th block of memory/1 or matmul/1 fails; 0: none
  Parallel parallel = Parallel::kInline;
  uint32_t workers = 1;  // of the forward call that runs
  std::string bad_tensor;
  TensorFault tensor_fault = TensorFault::kNone;

  // Accounts.
  struct Accounts {
    uint64_t blocks = 0, used_bytes = 0, allocations = 0;  // memory/1 and matmul/1
    uint64_t log_lines = 0, log_bytes = 0, longest_line = 0;
    uint64_t parallel_runs = 0;
    std::set<std::string> asked;               // services looked up
    std::set<std::string> tensors;             // found or looked for by name
    std::vector<std::string> violations;       // calls from a wrong role or state, once each
    std::vector<std::string> calls_in_create;  // names of host functions
    std::string last_error;                    // of error/1, for the call that ran last
  };
  Accounts accounts() const;
  void forget_error();

  /// Makes tensors that were lent until now unusable.
  void revoke_tensors();
  /// Announces a newer minor version with longer structures: `extra` bytes of rubbish behind each.
  void pretend_newer(uint16_t minor);

  struct Impl;

 private:
  friend struct HostServices;  // lets the service functions at the state
  Context& context_;
  const chimera_host* abi_;
  std::unique_ptr<Impl> impl_;
};

/// Tells the services what the calling thread is doing inside the plugin.
class CallScope {
 public:
  CallScope(Call call, const void* host);
  ~CallScope();
  CallScope(const CallScope&) = delete;
  CallScope& operator=(const CallScope&) = delete;

 private:
  Call call_before_;
  const void* host_before_;
};
Call current_call();

}  // namespace chimera::check
