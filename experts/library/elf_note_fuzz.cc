// The ELF note reader on arbitrary bytes: no crash, and what it accepts has an id and an entry.
#include <cstdint>
#include <cstdlib>

#include "experts/library/elf_note.h"
#include "experts/module/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const auto note =
      chimera::read_elf_note({reinterpret_cast<const std::byte*>(data), size}, "fuzz");
  if (note.ok() && (!chimera::is_plugin_id(note->id) || !note->has_entry)) std::abort();
  return 0;
}
