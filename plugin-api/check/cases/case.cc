#include "check/cases/case.h"

#include <algorithm>
#include <array>
#include <cstring>

namespace chimera::check {
namespace {

constexpr Level kGate = Level::kGate, kNormal = Level::kNormal;

constexpr std::array kCases = {
    Case{1, 'A', "elf-class", kGate, 10, "It is a 64-bit shared library of this machine.",
         check_elf_class},
    Case{2, 'A', "one-symbol", kGate, 10, "It exports chimera_expert_entry_v1 and nothing else.",
         check_one_symbol},
    Case{3, 'A', "no-unique-symbols", kGate, 10,
         "It has no STB_GNU_UNIQUE symbol, which would keep it mapped for ever.",
         check_unique_symbols},
    Case{4, 'A', "hardened", kGate, 10,
         "No text relocations, no executable stack, relro, bound at load time.", check_hardening},
    Case{5, 'A', "needed-libraries", kGate, 10,
         "It needs only libraries that every host has (or --allow names).", check_needed},
    Case{6, 'A', "run-path", kGate, 10, "It looks for libraries in its own directory at most.",
         check_run_path},
    Case{7, 'A', "note", kGate, 10, "ELF note, manifest, entry and descriptor say the same.",
         check_note},
    Case{8, 'A', "digests", kGate, 30, "The files of the module have the digests of its manifest.",
         check_digests},
    Case{9, 'A', "instructions", kNormal, 60,
         "Instructions beyond the declared CPU features are behind a question to the CPU.",
         check_instructions},
    Case{10, 'B', "loads", kGate, 20, "It loads, and its entry and descriptors are well-formed.",
         check_load},
    Case{11, 'B', "constructors", kGate, 20, "Loading it does nothing that can be observed.",
         check_constructors},
    Case{12, 'B', "load-time", kGate, 20,
         "Load, init and scan take less than 10 ms (warning) or 100 ms (failure).",
         check_load_time},
    Case{13, 'B', "unknown-factory", kGate, 20, "An unknown factory id gives null.",
         check_unknown_factory},
    Case{14, 'B', "unknown-id", kGate, 20,
         "create with an id that is not exactly its own gives null.", check_unknown_id},
    Case{15, 'B', "descriptor-stable", kGate, 20,
         "Descriptors never change, nor do their addresses.", check_descriptor_stable},
    Case{16, 'B', "init-twice", kGate, 20, "init and deinit can come again.", check_init_twice},
    Case{17, 'B', "versions", kGate, 20,
         "Hosts of other versions are refused or served, and no field is read past struct_size.",
         check_versions},
    Case{18, 'B', "services", kGate, 20,
         "It lives without optional services, and prepare refuses a host without a required one.",
         check_services},
    Case{19, 'C', "create-destroy", kGate, 20, "destroy directly after create leaves nothing.",
         check_create_destroy},
    Case{20, 'C', "prepare-failure", kNormal, 20, "destroy after a failed prepare leaves nothing.",
         check_prepare_failure},
    Case{21, 'C', "activate-cycles", kNormal, 60,
         "activate and deactivate again and again need no more memory.", check_activate_cycles},
    Case{22, 'C', "quiet-create", kGate, 20, "create does not call the host.", check_quiet_create},
    Case{23, 'C', "threads", kNormal, 20,
         "Roles may move between threads, and host calls come from the role they are meant for.",
         check_threads},
    Case{24, 'C', "two-instances", kNormal, 20, "Two instances do not disturb each other.",
         check_two_instances},
    Case{25, 'C', "reset", kNormal, 20, "After reset outputs equal those of a fresh instance.",
         check_reset},
    Case{26, 'D', "row-counts", kGate, 60,
         "0, 1, odd and most rows work; more rows, unknown layers and experts are refused.",
         check_row_counts},
    Case{27, 'D', "output-bounds", kGate, 30,
         "Every output value is written, and nothing beside them.", check_output_bounds},
    Case{28, 'D', "input-intact", kGate, 20, "Input rows and the batch are only read.",
         check_input_intact},
    Case{29, 'D', "no-pointer-kept", kNormal, 20, "Nothing lent for a call is used after it.",
         check_pointers_kept},
    Case{30, 'D', "finite", kGate, 30,
         "Outputs are finite for random, zero, large and denormal inputs; NaN and Inf do no harm.",
         check_finite},
    Case{31, 'D', "repeatable", kGate, 30,
         "A row's output does not depend on time, batch, position or number of workers.",
         check_repeatable},
    Case{32, 'D', "reference", kNormal, 60,
         "Outputs agree with the reference weights (--reference).", check_reference},
    Case{33, 'D', "strides", kNormal, 30,
         "Every stride and alignment that the contract allows works.", check_strides},
    Case{34, 'D', "scratch", kNormal, 20, "Scratch memory beyond the declared size is not touched.",
         check_scratch},
    Case{35, 'D', "steady-state", kNormal, 30,
         "A warm forward neither allocates nor makes system calls.", check_steady_state},
    Case{36, 'D', "cancel", kNormal, 60,
         "Cancellation and deadline end forward within 10 ms or what is declared.", check_cancel},
    Case{37, 'D', "concurrency", kNormal, 60,
         "Overlapping calls of a reentrant plugin give the same outputs.", check_concurrency},
    Case{38, 'D', "parallel", kNormal, 30,
         "Any number of workers, inline bodies and a refusal of chimera.parallel/1 are endured.",
         check_parallel},
    Case{39, 'E', "allocation-failure", kNormal, 60,
         "The failure of any host allocation is reported.", check_allocation_failure},
    Case{40, 'E', "bad-tensors", kNormal, 60, "Missing, cut and wrong tensors are refused.",
         check_bad_tensors},
    Case{41, 'E', "config-fuzz", kNormal, 60, "Any configuration text is accepted or refused.",
         check_config_fuzz},
    Case{42, 'E', "exceptions", kNormal, 60, "No exception crosses the boundary.",
         check_exceptions},
    Case{43, 'E', "log-flood", kNormal, 30, "It does not flood the log, nor print past it.",
         check_log_flood},
    Case{44, 'F', "after-deinit", kNormal, 20,
         "After deinit threads, descriptors, handlers, timers and mappings are as before.",
         check_after_deinit},
    Case{45, 'F', "unmapped", kNormal, 20, "A library that claims unload-clean can be unmapped.",
         check_unmapped},
    Case{46, 'F', "load-cycles", kNormal, 120, "Loading it again and again needs no more memory.",
         check_load_cycles},
    Case{47, 'F', "new-bytes", kNormal, 20,
         "A changed library behaves as changed, beside the old one.", check_new_bytes},
};

}  // namespace

std::span<const Case> all_cases() { return kCases; }

std::string_view verdict_name(Verdict verdict) {
  constexpr std::string_view kNames[] = {"pass", "warn", "fail", "skip"};
  return kNames[static_cast<size_t>(verdict)];
}

std::string_view level_name(Level level) {
  constexpr std::string_view kNames[] = {"gate", "normal", "strict", "soak"};
  return kNames[static_cast<size_t>(level)];
}

uint64_t Context::affordable(uint64_t wanted, uint64_t done, double seconds) const {
  const double each = std::max(seconds / static_cast<double>(std::max<uint64_t>(done, 1)), 1e-9);
  const double fitting = std::max(limit_s / 2 / each, 8.0);
  return fitting < static_cast<double>(wanted) ? static_cast<uint64_t>(fitting) : wanted;
}

void Context::phase(std::string_view what) {
  if (what == board.phase) return;  // overlapping forward calls do not race for it
  const size_t n = std::min(what.size(), sizeof(board.phase) - 1);
  std::memcpy(board.phase, what.data(), n);
  board.phase[n] = '\0';
}

}  // namespace chimera::check
