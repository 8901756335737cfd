// Any bytes: the reader of ELF files returns, and reads nothing outside them.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "check/elf_file.h"
#include "check/safetensors_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view bytes(reinterpret_cast<const char*>(data), size);
  (void)chimera::check::parse_elf(bytes);
  (void)chimera::check::parse_tensor_file("fuzz", std::string(bytes));
  return 0;
}
