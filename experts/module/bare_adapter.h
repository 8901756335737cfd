// Adapter directories as PEFT writes them, taken as modules as they are: adapter_config.json and
// adapter_model.safetensors, no module.yaml. The module is named after its directory, in lower case
// and with '-' for what a name cannot have; its version is the beginning of its digest.
//
// Thread safety: free functions, from any thread.
#pragma once

#include <string>

#include "base/io/digest_memo.h"
#include "base/status.h"
#include "experts/module/manifest.h"

namespace chimera {

inline constexpr const char* kAdapterConfigFile = "adapter_config.json";
inline constexpr const char* kAdapterTensorsFile = "adapter_model.safetensors";
/// Longest accepted adapter_config.json, bytes.
inline constexpr size_t kMaxAdapterConfigBytes = 1u << 20;

/// Whether `dir` has an adapter_config.json and no module.yaml.
bool is_bare_adapter(const std::string& dir);

/// Its manifest, without digests. invalid_argument when the directory's name gives no module name.
Result<Manifest> bare_adapter_manifest(const std::string& dir);

/// Fills in the digests of a derived manifest, for which all of its files are read: what the module
/// is from then on. Without effect on any other. `digests` may be null.
Status complete_manifest(const std::string& dir, DigestMemo* digests, Manifest* manifest);

}  // namespace chimera
