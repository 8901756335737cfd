// A module directory opened, compared with its manifest and with a backbone, and sorted: what both
// loading and grafting start from.
//
// Thread safety: values and free functions, from any thread.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "backbone/checkpoint/safetensors.h"
#include "backbone/families/model_config.h"
#include "base/io/digest_memo.h"
#include "base/status.h"
#include "experts/module/manifest.h"
#include "experts/module/tensors.h"

namespace chimera {

struct ModulePayload {
  Manifest manifest;
  std::vector<SafetensorsFile> files;     // with experts
  ModuleTensors tensors;                  // points into `files`
  std::optional<SafetensorsFile> shared;  // kind bundle: the backbone's tensors; not checked here
};

/// What the caller can take: experts alone, or what a bundle has beside them, too.
enum class PayloadKinds : uint8_t { kWeights, kWeightsAndBundles };

/// Manifest, kind, fingerprint, sizes, file digests over the very bytes that are kept, tensor
/// names, shapes and finite numbers; in that order, so that cheap checks come first. `digests` may
/// be null.
Result<ModulePayload> open_module_payload(const std::string& dir, const ModelConfig& config,
                                          const std::string& fingerprint,
                                          DigestMemo* digests = nullptr,
                                          PayloadKinds kinds = PayloadKinds::kWeights);
/// The same with a manifest that is not, or not yet, the one in `dir`.
Result<ModulePayload> open_module_payload(const std::string& dir, Manifest manifest,
                                          const ModelConfig& config, const std::string& fingerprint,
                                          DigestMemo* digests = nullptr,
                                          PayloadKinds kinds = PayloadKinds::kWeights);

/// Fingerprint, hidden size and layers of a module of any kind against a backbone.
Status check_module_fit(const Manifest& manifest, const ModelConfig& config,
                        const std::string& fingerprint);
/// data_corrupt when the digests differ.
Status check_payload_digest(const std::string& path, const std::string& found,
                            const std::string& expected);

}  // namespace chimera
