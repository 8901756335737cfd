#include "experts/kinds/lora.h"

#include <fmt/format.h>

#include <optional>

#include "base/io/digest.h"
#include "experts/lora/build.h"
#include "experts/lora/config.h"
#include "experts/lora/tensors.h"
#include "experts/module/bare_adapter.h"
#include "experts/module/files.h"
#include "experts/module/payload.h"
#include "experts/module/tensors.h"

namespace chimera {
namespace {

/// The files of an adapter, read and compared with the manifest.
struct Package {
  std::string label;  // "module NAME"
  Manifest manifest;
  std::optional<LoraConfig> config;
  std::optional<SafetensorsFile> tensors;
};

Status check_files(const std::string& dir, const Manifest& manifest) {
  int configs = 0;
  int tensors = 0;
  for (const ManifestFile& file : manifest.files) {
    configs += file.path == kAdapterConfigFile ? 1 : 0;
    tensors += file.path.ends_with(".safetensors") ? 1 : 0;
  }
  if (configs == 1 && tensors == 1) return {};
  return {Code::kInvalidArgument,
          fmt::format("{}/module.yaml: files: found {} named {} and {} that end in .safetensors "
                      "(expected one of each, for kind lora)",
                      dir, configs, kAdapterConfigFile, tensors)};
}

/// With TensorDepth::kHeader without reading tensors or comparing digests.
Result<Package> open_package(const std::string& dir, Manifest manifest, DigestMemo* digests,
                             TensorDepth depth) {
  CHIMERA_RETURN_IF_ERROR(check_files(dir, manifest));
  Package package{"module " + manifest.name, std::move(manifest), {}, {}};
  for (const ManifestFile& entry : package.manifest.files) {
    const Result<ModuleFile> file = ModuleFile::open(dir, entry.path);
    if (!file.ok()) return file.status();
    std::string digest;
    if (entry.path.ends_with(".safetensors")) {
      Result<SafetensorsFile> tensors =
          depth == TensorDepth::kHeader ? file->header() : file->safetensors();
      if (!tensors.ok()) return tensors.status();
      if (depth == TensorDepth::kContent) digest = tensors->sha256(digests);
      package.tensors = std::move(*tensors);
    } else {
      const Result<std::string> text = file->text(kMaxAdapterConfigBytes);
      if (!text.ok()) return text.status();
      digest = sha256_of(*text);
      if (entry.path == kAdapterConfigFile) {
        Result<LoraConfig> parsed = LoraConfig::parse(*text, file->label());
        if (!parsed.ok()) return parsed.status();
        package.config = std::move(*parsed);
      }
    }
    if (depth == TensorDepth::kHeader) continue;
    CHIMERA_RETURN_IF_ERROR(check_payload_digest(file->label(), digest, entry.sha256));
  }
  return package;
}

/// What has grown cannot be what it was, and is not to be read into memory to find that out.
Status check_no_larger(const std::string& dir, const Manifest& manifest, uint64_t bytes) {
  for (const ManifestFile& entry : manifest.files) {
    if (!entry.path.ends_with(".safetensors")) continue;
    const Result<ModuleFile> file = ModuleFile::open(dir, entry.path);
    if (!file.ok()) return file.status();
    const Result<uint64_t> size = file->size();
    if (!size.ok()) return size.status();
    if (*size <= bytes) continue;
    return {Code::kDataCorrupt,
            fmt::format("{}: found {} bytes (expected {} at most)", file->label(), *size, bytes)};
  }
  return {};
}

Result<Manifest> complete(const std::string& dir, DigestMemo* digests) {
  Result<Manifest> manifest = read_manifest(dir);
  if (manifest.ok()) CHIMERA_RETURN_IF_ERROR(complete_manifest(dir, digests, &*manifest));
  return manifest;
}

}  // namespace

Result<LoraPayload> open_lora_payload(const std::string& dir, const ModelConfig& config,
                                      const std::string& fingerprint, DigestMemo* digests) {
  Result<Manifest> manifest = complete(dir, digests);
  if (!manifest.ok()) return manifest.status();
  CHIMERA_RETURN_IF_ERROR(check_module_fit(*manifest, config, fingerprint));
  Result<Package> package = open_package(dir, std::move(*manifest), digests, TensorDepth::kContent);
  if (!package.ok()) return package.status();
  Result<std::vector<StoredChange>> changes = sort_adapter_tensors(
      *package->tensors, *package->config, config, TensorDepth::kContent, package->label);
  if (!changes.ok()) return changes.status();
  return LoraPayload{std::move(package->manifest), std::move(*package->tensors),
                     std::move(*changes)};
}

Result<std::shared_ptr<const Module>> load_lora_module(const std::string& dir,
                                                       const BackboneInfo& backbone) {
  Result<LoraPayload> payload =
      open_lora_payload(dir, backbone.config, backbone.fingerprint, backbone.digests.get());
  if (!payload.ok()) return payload.status();
  if (backbone.accept) CHIMERA_RETURN_IF_ERROR(backbone.accept(dir, payload->manifest));
  auto adapter = build_adapter(payload->changes, backbone.config, payload->tensors.file_bytes(),
                               backbone.weights.get());
  if (!adapter.ok()) return adapter.status().with_context("module " + payload->manifest.name);
  auto module = std::make_shared<Module>();
  module->manifest = std::move(payload->manifest);
  module->dir = dir;
  module->adapter = std::move(*adapter);
  return std::shared_ptr<const Module>(std::move(module));
}

Result<std::shared_ptr<const Adapter>> read_lora_adapter(const std::string& dir,
                                                         const Manifest& manifest, uint64_t bytes,
                                                         const BackboneInfo& backbone) {
  CHIMERA_RETURN_IF_ERROR(check_no_larger(dir, manifest, bytes));
  const Result<Package> package =
      open_package(dir, manifest, backbone.digests.get(), TensorDepth::kContent);
  if (!package.ok()) return package.status();
  // Its digests say that its numbers were found finite before.
  const Result<std::vector<StoredChange>> changes = sort_adapter_tensors(
      *package->tensors, *package->config, backbone.config, TensorDepth::kHeader, package->label);
  if (!changes.ok()) return changes.status();
  return build_adapter(*changes, backbone.config, package->tensors->file_bytes(),
                       backbone.weights.get());
}

Status check_lora_outline(const std::string& dir, const Manifest& manifest,
                          const ModelConfig& config, const std::string& fingerprint) {
  CHIMERA_RETURN_IF_ERROR(check_module_fit(manifest, config, fingerprint));
  const Result<Package> package = open_package(dir, manifest, nullptr, TensorDepth::kHeader);
  if (!package.ok()) return package.status();
  return sort_adapter_tensors(*package->tensors, *package->config, config, TensorDepth::kHeader,
                              package->label)
      .status();
}

Status check_lora_module(const std::string& dir, Manifest manifest, const ModelConfig* config,
                         const std::string& fingerprint) {
  if (config != nullptr) CHIMERA_RETURN_IF_ERROR(check_module_fit(manifest, *config, fingerprint));
  const Result<Package> package =
      open_package(dir, std::move(manifest), nullptr, TensorDepth::kContent);
  if (!package.ok()) return package.status();
  if (config != nullptr) {
    return sort_adapter_tensors(*package->tensors, *package->config, *config, TensorDepth::kContent,
                                package->label)
        .status();
  }
  for (const TensorView& tensor : package->tensors->tensors())
    CHIMERA_RETURN_IF_ERROR(check_finite(tensor).with_context(package->label));
  return {};
}

}  // namespace chimera
