// Modules of kind lora: adapter directories as PEFT writes them, with or without a module.yaml.
//
// Thread safety: free functions; blocking, to be called off the engine thread.
#pragma once

#include <cstdint>
#include <memory>
#include <string>
#include <vector>

#include "base/status.h"
#include "experts/kinds/module.h"
#include "experts/lora/tensors.h"

namespace chimera {

/// load_module for kind lora.
Result<std::shared_ptr<const Module>> load_lora_module(const std::string& dir,
                                                       const BackboneInfo& backbone);

/// The adapter of a module that load_lora_module loaded, read again to the same bits. data_corrupt,
/// with the name of the file, when a file is not what it was. `bytes`: Adapter::bytes of it then.
Result<std::shared_ptr<const Adapter>> read_lora_adapter(const std::string& dir,
                                                         const Manifest& manifest, uint64_t bytes,
                                                         const BackboneInfo& backbone);

/// What load_lora_module checks but digests and numbers: manifest, options, names and shapes.
Status check_lora_outline(const std::string& dir, const Manifest& manifest,
                          const ModelConfig& config, const std::string& fingerprint);

/// Everything that load_lora_module checks, with a manifest that is not, or not yet, the one in
/// `dir`, for programs that only look. Without `config` nothing is compared with a backbone.
Status check_lora_module(const std::string& dir, Manifest manifest, const ModelConfig* config,
                         const std::string& fingerprint);

/// What the module of `dir` changes of a backbone, checked as load_lora_module does, for programs
/// that merge it.
struct LoraPayload {
  Manifest manifest;
  SafetensorsFile tensors;
  std::vector<StoredChange> changes;  // views into `tensors`
};
Result<LoraPayload> open_lora_payload(const std::string& dir, const ModelConfig& config,
                                      const std::string& fingerprint,
                                      DigestMemo* digests = nullptr);

}  // namespace chimera
