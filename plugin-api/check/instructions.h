// Which CPU features the instructions of a library need, by way of objdump.
//
// Thread safety: pure functions but for the child process.
#pragma once

#include <cstdint>
#include <map>
#include <optional>
#include <string>

namespace chimera::check {

struct InstructionScan {
  uint64_t count = 0;
  bool asks_cpu = false;                     // there is a cpuid instruction
  std::map<uint64_t, std::string> examples;  // CHIMERA_CPU_* to the first instruction that needs it
};

/// Disassembles the executable sections; nullopt when there is no objdump.
std::optional<InstructionScan> scan_instructions(const std::string& path);

/// The CHIMERA_CPU_* that one disassembled instruction needs, 0: none.
/// `text` as objdump prints it: "vpaddd %ymm1,%ymm2,%ymm3".
uint64_t instruction_feature(const std::string& text);

/// `features` and those that every CPU with them has too.
uint64_t with_implied(uint64_t features);
std::string feature_name(uint64_t feature);

}  // namespace chimera::check
