#include "experts/module/payload.h"

#include <fmt/format.h>

#include <algorithm>
#include <utility>

#include "base/threads/each_parallel.h"
#include "experts/module/files.h"
#include "experts/module/outline.h"

namespace chimera {
namespace {

/// Whether the file has tensors of the backbone rather than experts.
bool is_shared(const Manifest& manifest, const ManifestFile& file) {
  return manifest.shared && manifest.shared->file == file.path;
}

Status check_weights(const Manifest& manifest, const std::string& dir, PayloadKinds kinds) {
  const bool bundle = manifest.kind == ModuleKind::kBundle;
  if (bundle && kinds == PayloadKinds::kWeights) {
    return {Code::kUnimplemented,
            fmt::format("module {}: found kind bundle (expected weights)", manifest.name),
            "Its experts belong to tensors of the backbone that it changes; `chimera module graft` "
            "takes it whole."};
  }
  if (manifest.kind != ModuleKind::kWeights && !bundle) {
    return {Code::kUnimplemented,
            fmt::format("module {}: found kind {} (expected weights)", manifest.name,
                        kModuleKindNames.name(manifest.kind)),
            manifest.kind == ModuleKind::kLibrary
                ? "The experts of a library module are code; it has no weights to cut or graft."
                : "`chimera module assemble` makes a module of weights of a recipe."};
  }
  if (manifest.kind == ModuleKind::kLora) {
    return {Code::kUnimplemented,
            fmt::format("module {}: found kind lora (expected weights)", manifest.name),
            "An adapter has no experts of its own to cut or graft."};
  }
  const bool has_weights =
      std::any_of(manifest.files.begin(), manifest.files.end(), [&](const ManifestFile& f) {
        return f.path.ends_with(".safetensors") && !is_shared(manifest, f);
      });
  if (!has_weights && bundle) {
    return {Code::kInvalidArgument,
            fmt::format("{}/module.yaml: files: found no .safetensors file but that of `shared` "
                        "(expected one or more with experts)",
                        dir)};
  }
  if (!has_weights) {
    return {Code::kInvalidArgument,
            fmt::format("{}/module.yaml: files: found no .safetensors file (expected one or more)",
                        dir)};
  }
  return {};
}

/// Opens a file of the manifest and compares its digest; `weights` gets what holds tensors.
Status open_file(const std::string& dir, const ManifestFile& entry, DigestMemo* digests,
                 std::optional<SafetensorsFile>* weights) {
  const std::string path = dir + "/" + entry.path;
  Result<ModuleFile> file = ModuleFile::open(dir, entry.path);
  if (!file.ok()) return file.status();
  if (!entry.path.ends_with(".safetensors")) {
    const Result<std::string> digest = file->sha256();
    if (!digest.ok()) return digest.status();
    return check_payload_digest(path, *digest, entry.sha256);
  }
  Result<SafetensorsFile> read = file->safetensors();
  if (!read.ok()) return read.status();
  CHIMERA_RETURN_IF_ERROR(check_payload_digest(path, read->sha256(digests), entry.sha256));
  *weights = std::move(*read);
  return {};
}

/// Files side by side: a digest is computed on one CPU, and takes longer than reading does.
Status open_payload(const std::string& dir, DigestMemo* digests, ModulePayload* payload) {
  const std::vector<ManifestFile>& entries = payload->manifest.files;
  std::vector<std::optional<SafetensorsFile>> opened(entries.size());
  CHIMERA_RETURN_IF_ERROR(for_each_parallel(static_cast<int64_t>(entries.size()), [&](int64_t i) {
    const auto at = static_cast<size_t>(i);
    return open_file(dir, entries[at], digests, &opened[at]);
  }));
  for (size_t i = 0; i < entries.size(); ++i) {
    if (!opened[i]) continue;
    if (is_shared(payload->manifest, entries[i])) {
      payload->shared = std::move(*opened[i]);
    } else {
      payload->files.push_back(std::move(*opened[i]));
    }
  }
  return {};
}

}  // namespace

Status check_module_fit(const Manifest& manifest, const ModelConfig& config,
                        const std::string& fingerprint) {
  if (manifest.derived) return {};
  if (manifest.backbone_fingerprint != fingerprint) {
    return {Code::kFailedPrecondition,
            fmt::format("module {}: found backbone fingerprint {} (expected {})", manifest.name,
                        manifest.backbone_fingerprint, fingerprint),
            "This module was trained against another backbone."};
  }
  if (manifest.hidden_size != config.hidden_size) {
    return {Code::kFailedPrecondition,
            fmt::format("module {}: found backbone.hidden_size {} (expected {})", manifest.name,
                        manifest.hidden_size, config.hidden_size),
            "This module was trained against another backbone."};
  }
  if (manifest.layers && !manifest.layers->empty() &&
      manifest.layers->back() >= config.num_layers) {
    return {Code::kFailedPrecondition,
            fmt::format("module {}: found layer {} in layers (expected 0 to {})", manifest.name,
                        manifest.layers->back(), config.num_layers - 1)};
  }
  return {};
}

Status check_module_outline(const std::string& dir, const Manifest& manifest,
                            const ModelConfig& config, const std::string& fingerprint) {
  CHIMERA_RETURN_IF_ERROR(check_weights(manifest, dir, PayloadKinds::kWeightsAndBundles));
  CHIMERA_RETURN_IF_ERROR(check_module_fit(manifest, config, fingerprint));
  std::vector<SafetensorsFile> files;
  for (const ManifestFile& entry : manifest.files) {
    const Result<ModuleFile> file = ModuleFile::open(dir, entry.path);
    if (!file.ok()) return file.status();
    if (!entry.path.ends_with(".safetensors") || is_shared(manifest, entry)) continue;
    Result<SafetensorsFile> header = file->header();
    if (!header.ok()) return header.status();
    files.push_back(std::move(*header));
  }
  const std::string label = "module " + manifest.name;
  const Result<ModuleTensors> tensors = sort_module_tensors(files);
  if (!tensors.ok()) return tensors.status().with_context(label);
  return check_module_tensors(*tensors, manifest, config, TensorDepth::kHeader).with_context(label);
}

Status check_payload_digest(const std::string& path, const std::string& found,
                            const std::string& expected) {
  if (found == expected) return {};
  return {Code::kDataCorrupt,
          fmt::format("{}: found {} (expected {}, as module.yaml says)", path, found, expected),
          "Copy the module again; if the change is meant, run chimera-module seal."};
}

Result<ModulePayload> open_module_payload(const std::string& dir, const ModelConfig& config,
                                          const std::string& fingerprint, DigestMemo* digests,
                                          PayloadKinds kinds) {
  Result<Manifest> manifest = read_manifest(dir);
  if (!manifest.ok()) return manifest.status();
  return open_module_payload(dir, std::move(*manifest), config, fingerprint, digests, kinds);
}

Result<ModulePayload> open_module_payload(const std::string& dir, Manifest manifest,
                                          const ModelConfig& config, const std::string& fingerprint,
                                          DigestMemo* digests, PayloadKinds kinds) {
  CHIMERA_RETURN_IF_ERROR(check_weights(manifest, dir, kinds));
  CHIMERA_RETURN_IF_ERROR(check_module_fit(manifest, config, fingerprint));
  ModulePayload payload{std::move(manifest), {}, {}, {}};
  CHIMERA_RETURN_IF_ERROR(open_payload(dir, digests, &payload));
  const std::string label = "module " + payload.manifest.name;
  Result<ModuleTensors> tensors = sort_module_tensors(payload.files);
  if (!tensors.ok()) return tensors.status().with_context(label);
  payload.tensors = std::move(*tensors);
  CHIMERA_RETURN_IF_ERROR(
      check_module_tensors(payload.tensors, payload.manifest, config).with_context(label));
  return payload;
}

}  // namespace chimera
