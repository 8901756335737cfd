// What the dynamic loader sees of a shared library, read from its bytes without running any of it.
//
// Made for untrusted files: every offset is checked against the size before it is used. Only the
// program headers are trusted as far as the loader itself trusts them; section headers, which a
// library may lack, are not used.
//
// Thread safety: pure functions, values.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "chimera/expert.h"

namespace chimera {

struct ElfSegment {
  uint32_t type = 0, flags = 0;
  uint64_t offset = 0, address = 0, file_size = 0, memory_size = 0;
};

struct ElfSymbol {
  std::string_view name;  // in the bytes of the file
  uint8_t binding = 0, type = 0, visibility = 0;
  uint16_t section = 0;
  uint64_t value = 0, size = 0;
};

struct ElfFile {
  uint8_t elf_class = 0, byte_order = 0;
  uint16_t type = 0, machine = 0;
  std::vector<ElfSegment> segments;
  std::vector<ElfSymbol> symbols;  // the dynamic symbol table without its first, null entry
  std::vector<std::string> needed;
  std::string rpath, runpath, soname;
  uint64_t flags = 0, flags1 = 0;  // DT_FLAGS, DT_FLAGS_1
  bool text_relocations = false, bind_now = false;
  uint32_t note_count = 0;                  // of Chimera's notes
  std::optional<chimera_expert_note> note;  // the first of them, when it has the right size
  std::string gnu_build_id;                 // hex; empty when the linker left none

  /// Where a loaded address lies in the file; nullopt when it lies in no file-backed part.
  std::optional<uint64_t> file_offset(uint64_t address, uint64_t size) const;
};

/// data_corrupt, with a message that goes on from "found", when it is no ELF file, when a
/// table leaves the file or when it has more of something than any library. A file of another class
/// or byte order is returned with nothing but those two fields. The result points into `bytes`.
Result<ElfFile> parse_elf(std::string_view bytes);

/// The text of a NUL-padded field of the note; at most `size` bytes.
std::string note_text(const char* field, size_t size);

}  // namespace chimera
