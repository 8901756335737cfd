// What can be known of a shared library before any of its code runs: that it is an ELF64 library
// for this machine, and the note that CHIMERA_EXPERT_NOTE put into it.
//
// Made for untrusted files: every offset is checked against the size before it is used.
//
// Thread safety: pure functions.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>

#include "base/status.h"

namespace chimera {

struct ElfNote {
  uint16_t abi_major = 0, abi_minor = 0;
  uint32_t plugin_count = 0;
  std::string id, version, build;
  std::string gnu_build_id;     // hex; empty when the linker left none
  uint64_t unique_symbols = 0;  // STB_GNU_UNIQUE: the dynamic loader never unmaps such a library
  bool has_entry = false;       // the dynamic symbol table defines chimera_expert_entry_v1
};

/// data_corrupt when it is no ELF64 shared library of this machine, when a table leaves the file
/// or when the note is missing or malformed; failed_precondition for another ABI major.
Result<ElfNote> read_elf_note(std::span<const std::byte> file, const std::string& label);

}  // namespace chimera
