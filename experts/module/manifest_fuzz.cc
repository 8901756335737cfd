// Fuzz target: module.yaml. What is accepted must be written and read back unchanged.
#include <cstdint>
#include <cstdlib>
#include <string_view>

#include "experts/module/manifest.h"

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
  const std::string_view text(reinterpret_cast<const char*>(data), size);
  for (const chimera::Sealing sealing : {chimera::Sealing::kSealed, chimera::Sealing::kUnsealed}) {
    const auto manifest = chimera::parse_manifest(text, "fuzz", sealing);
    if (!manifest.ok() || sealing == chimera::Sealing::kUnsealed) continue;
    const auto again = chimera::parse_manifest(chimera::manifest_yaml(*manifest), "again");
    if (!again.ok() || again->name != manifest->name || again->layers != manifest->layers) {
      std::abort();
    }
  }
  return 0;
}
