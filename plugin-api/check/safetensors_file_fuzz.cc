// Any bytes: the reader of tensor files returns, and reads nothing outside them.
#include <cstddef>
#include <cstdint>
#include <string>

#include "check/safetensors_file.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  (void)chimera::check::parse_tensor_file("fuzz",
                                          std::string(reinterpret_cast<const char*>(data), size));
  return 0;
}
