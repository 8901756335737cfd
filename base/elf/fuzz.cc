// Any bytes: the reader of ELF files returns, and reads nothing outside them.
#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "base/elf/file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  const auto file = chimera::parse_elf(bytes);
  if (!file.ok()) return 0;
  for (const chimera::ElfSymbol& symbol : file->symbols) {
    const bool inside = symbol.name.data() >= bytes.data() &&
                        symbol.name.data() + symbol.name.size() <= bytes.data() + bytes.size();
    if (!inside) std::abort();
  }
  return 0;
}
