// The 47 cases: the table of them, and what a running case gets.
//
// Each case runs in a process of its own with a time limit, so a plugin that crashes, exits or
// hangs spoils one verdict. Groups: A file, B loading, C life cycle, D forward, E robustness,
// F unloading.
//
// Thread safety: constants, and what a case gets by the main thread of its process.
#pragma once

#include <chrono>
#include <cstdint>
#include <random>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "check/finding.h"
#include "check/subject.h"

namespace chimera::check {

/// How much is tried. A case of a higher level is skipped at a lower one.
enum class Level : uint8_t { kGate, kNormal, kStrict, kSoak };
std::string_view level_name(Level level);

/// Memory shared with the process that waits for the verdict: it survives a crash.
struct Board {
  static constexpr size_t kText = 4096;
  char phase[256];  // what was being done, e.g. "in activate"
  uint32_t done;    // 1: `verdict` and `text` hold the finding
  uint32_t verdict;
  char text[kText];
};

/// Lent to a case. One thread.
struct Context {
  const Subject& subject;
  Level level;
  int case_number;
  uint64_t seed;         // of this run; printed
  std::string work_dir;  // private, removed afterwards
  Board& board;
  int output_fd;                        // what the plugin prints ends up here
  std::mt19937_64 random;               // depends on seed and case alone
  std::vector<std::string> exceptions;  // that crossed the boundary: "std::bad_alloc from create"
  uint64_t copies = 0;                  // of the library made so far: part of their names
  double limit_s = 0;                   // of this case
  std::chrono::steady_clock::time_point begin = std::chrono::steady_clock::now();

  /// Says what is going on, for the verdict after a crash. Allocates nothing.
  void phase(std::string_view what);
  double elapsed_s() const {
    return std::chrono::duration<double>(std::chrono::steady_clock::now() - begin).count();
  }
  /// Half of the time limit is over: loops end, so that a slow plugin is tried less and not failed.
  bool late() const { return elapsed_s() > limit_s / 2; }
  /// As many rounds as fit into half of the limit, at least 8, at most `wanted`, when `done` of
  /// them took `seconds`.
  uint64_t affordable(uint64_t wanted, uint64_t done, double seconds) const;
  /// One of four amounts, by level.
  template <class T>
  T amount(T gate, T normal, T strict, T soak) const {
    const T all[] = {gate, normal, strict, soak};
    return all[static_cast<size_t>(level)];
  }
};

struct Case {
  int number;           // of the list in docs/plugin-checker.md
  char group;           // 'A' … 'F'
  const char* name;     // kebab-case
  Level level;          // the lowest that runs it
  int limit_s;          // seconds
  const char* promise;  // what holds when it passes, one sentence
  Finding (*run)(Context&);
};

/// All cases in order of number.
std::span<const Case> all_cases();

// Group A: file.cc
Finding check_elf_class(Context&);
Finding check_one_symbol(Context&);
Finding check_unique_symbols(Context&);
Finding check_hardening(Context&);
Finding check_needed(Context&);
Finding check_run_path(Context&);
Finding check_note(Context&);
Finding check_digests(Context&);
Finding check_instructions(Context&);
// Group B: load.cc, version.cc
Finding check_load(Context&);
Finding check_constructors(Context&);
Finding check_load_time(Context&);
Finding check_unknown_factory(Context&);
Finding check_unknown_id(Context&);
Finding check_descriptor_stable(Context&);
Finding check_init_twice(Context&);
Finding check_versions(Context&);
Finding check_services(Context&);
// Group C: lifecycle.cc
Finding check_create_destroy(Context&);
Finding check_prepare_failure(Context&);
Finding check_activate_cycles(Context&);
Finding check_quiet_create(Context&);
Finding check_threads(Context&);
Finding check_two_instances(Context&);
Finding check_reset(Context&);
// Group D: forward.cc, numeric.cc, steady.cc
Finding check_row_counts(Context&);
Finding check_output_bounds(Context&);
Finding check_input_intact(Context&);
Finding check_pointers_kept(Context&);
Finding check_finite(Context&);
Finding check_repeatable(Context&);
Finding check_reference(Context&);
Finding check_strides(Context&);
Finding check_scratch(Context&);
Finding check_steady_state(Context&);
Finding check_cancel(Context&);
Finding check_concurrency(Context&);
Finding check_parallel(Context&);
// Group E: robust.cc
Finding check_allocation_failure(Context&);
Finding check_bad_tensors(Context&);
Finding check_config_fuzz(Context&);
Finding check_exceptions(Context&);
Finding check_log_flood(Context&);
// Group F: unload.cc
Finding check_after_deinit(Context&);
Finding check_unmapped(Context&);
Finding check_load_cycles(Context&);
Finding check_new_bytes(Context&);

}  // namespace chimera::check
