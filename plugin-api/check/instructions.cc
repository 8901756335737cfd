#include "check/instructions.h"

#include <spawn.h>
#include <sys/wait.h>
#include <unistd.h>

#include <cstdio>
#include <cstdlib>

#include "chimera/expert.h"

namespace chimera::check {
namespace {

bool begins(const std::string& text, const char* prefix) { return text.rfind(prefix, 0) == 0; }
bool contains(const std::string& text, const char* part) {
  return text.find(part) != std::string::npos;
}

/// Registers that only EVEX instructions reach: zmm, mask registers, the upper sixteen.
bool needs_avx512(const std::string& text) {
  if (contains(text, "%zmm") || contains(text, "%k") || contains(text, "{%")) return true;
  for (const char* bank : {"%xmm", "%ymm"}) {
    for (size_t at = text.find(bank); at != std::string::npos; at = text.find(bank, at + 1)) {
      if (std::atoi(text.c_str() + at + 4) > 15) return true;
    }
  }
  return false;
}

}  // namespace

uint64_t instruction_feature(const std::string& text) {
  if (begins(text, "tdp") || begins(text, "tile") || begins(text, "ldtilecfg")) {
    return begins(text, "tdpbf16") ? CHIMERA_CPU_AMX_BF16 : CHIMERA_CPU_AMX_INT8;
  }
  if (begins(text, "vdpbf16") || begins(text, "vcvtne")) return CHIMERA_CPU_AVX512_BF16;
  const bool wide = needs_avx512(text);
  if (begins(text, "vpdpbu") || begins(text, "vpdpwssd")) {
    return wide ? CHIMERA_CPU_AVX512_VNNI : CHIMERA_CPU_AVX_VNNI;
  }
  if (wide) return CHIMERA_CPU_AVX512;
  // Vector instructions with a v are VEX-encoded; those without operands in registers of that kind
  // (verr, vmcall) are system instructions.
  const bool vector = contains(text, "%xmm") || contains(text, "%ymm") || begins(text, "vzero");
  return begins(text, "v") && vector ? CHIMERA_CPU_AVX2 : 0;
}

std::optional<InstructionScan> scan_instructions(const std::string& path) {
  int ends[2];
  if (pipe(ends) != 0) return std::nullopt;
  posix_spawn_file_actions_t actions;
  posix_spawn_file_actions_init(&actions);
  posix_spawn_file_actions_adddup2(&actions, ends[1], 1);
  posix_spawn_file_actions_addclose(&actions, ends[0]);
  posix_spawn_file_actions_addclose(&actions, ends[1]);
  std::string arguments[] = {"objdump", "-d", "--no-show-raw-insn", path};
  char* argv[] = {arguments[0].data(), arguments[1].data(), arguments[2].data(),
                  arguments[3].data(), nullptr};
  pid_t child = -1;
  const int error = posix_spawnp(&child, "objdump", &actions, nullptr, argv, environ);
  posix_spawn_file_actions_destroy(&actions);
  ::close(ends[1]);
  if (error != 0) {
    ::close(ends[0]);
    return std::nullopt;
  }
  InstructionScan scan;
  FILE* in = fdopen(ends[0], "r");
  char* line = nullptr;
  size_t size = 0;
  while (in != nullptr && getline(&line, &size, in) > 0) {
    std::string text = line;
    // "    1139:\tpush   %rbp\n"
    const size_t tab = text.find(":\t");
    if (tab == std::string::npos) continue;
    text = text.substr(tab + 2);
    while (!text.empty() && (text.back() == '\n' || text.back() == ' ')) text.pop_back();
    ++scan.count;
    if (begins(text, "cpuid")) scan.asks_cpu = true;
    if (const uint64_t feature = instruction_feature(text)) scan.examples.emplace(feature, text);
  }
  std::free(line);
  if (in != nullptr) std::fclose(in);
  int status = 0;
  waitpid(child, &status, 0);
  if (!WIFEXITED(status) || WEXITSTATUS(status) != 0) return std::nullopt;
  return scan;
}

uint64_t with_implied(uint64_t features) {
  if ((features & CHIMERA_CPU_AVX512_VNNI) != 0 || (features & CHIMERA_CPU_AVX512_BF16) != 0 ||
      (features & CHIMERA_CPU_AMX_INT8) != 0 || (features & CHIMERA_CPU_AMX_BF16) != 0) {
    features |= CHIMERA_CPU_AVX512;
  }
  if ((features & (CHIMERA_CPU_AVX512 | CHIMERA_CPU_AVX_VNNI)) != 0) features |= CHIMERA_CPU_AVX2;
  return features;
}

std::string feature_name(uint64_t feature) {
  switch (feature) {
    case CHIMERA_CPU_AVX2:
      return "AVX2";
    case CHIMERA_CPU_AVX512:
      return "AVX-512";
    case CHIMERA_CPU_AVX512_VNNI:
      return "AVX-512 VNNI";
    case CHIMERA_CPU_AVX512_BF16:
      return "AVX-512 BF16";
    case CHIMERA_CPU_AMX_INT8:
      return "AMX int8";
    case CHIMERA_CPU_AMX_BF16:
      return "AMX BF16";
    case CHIMERA_CPU_AVX_VNNI:
      return "AVX-VNNI";
    default:
      return "?";
  }
}

}  // namespace chimera::check
