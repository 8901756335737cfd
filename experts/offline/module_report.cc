#include "experts/offline/module_report.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <map>

#include "backbone/checkpoint/check.h"
#include "backbone/checkpoint/checkpoint.h"
#include "backbone/checkpoint/fingerprint.h"
#include "backbone/families/model_config.h"
#include "backbone/gguf/gguf_file.h"
#include "base/io/env.h"
#include "base/yaml/tree.h"
#include "experts/kinds/assembly_module.h"
#include "experts/kinds/bundle_module.h"
#include "experts/kinds/library_module.h"
#include "experts/kinds/lora.h"
#include "experts/lora/build.h"
#include "experts/lora/config.h"
#include "experts/module/bare_adapter.h"
#include "experts/module/files.h"
#include "experts/module/manifest.h"
#include "experts/module/payload.h"
#include "experts/offline/checkpoint_report.h"

namespace chimera {
namespace {

bool exists(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0;
}

/// "BF16", or "BF16, F32" when tensors differ.
std::string dtypes_of(const std::map<std::string, uint64_t>& bytes_by_dtype) {
  std::string text;
  for (const auto& [dtype, bytes] : bytes_by_dtype) text += (text.empty() ? "" : ", ") + dtype;
  return text;
}

void add_tensors(const SafetensorsFile& file, std::map<std::string, uint64_t>& by_dtype,
                 uint64_t& count, uint64_t& bytes) {
  for (const TensorView& tensor : file.tensors()) {
    by_dtype[std::string(dtype_name(tensor.dtype))] += tensor.bytes.size();
    bytes += tensor.bytes.size();
    ++count;
  }
}

Json manifest_json(const Manifest& m) {
  Json out;
  out["type"] = "module";
  out["name"] = m.name;
  out["version"] = m.version;
  if (!m.domain.empty()) out["domain"] = m.domain;
  if (!m.description.empty()) out["description"] = m.description;
  if (!m.license.empty()) out["license"] = m.license;
  out["kind"] = kModuleKindNames.name(m.kind);
  out["attach"] = kAttachNames.name(m.attach);
  out["backbone"] = m.backbone_fingerprint;
  out["hidden_size"] = m.hidden_size;
  out["digest"] = m.digest;
  if (m.layers) {
    out["layers"] = *m.layers;
  } else {
    out["layers"] = "all";
  }
  if (m.library) {
    out["library"] = {{"file", m.library->file},
                      {"id", m.library->id},
                      {"isolation", kIsolationNames.name(m.library->isolation)},
                      {"on_failure", kFailurePolicyNames.name(m.library->on_failure)}};
  }
  if (m.fitted_top_k()) out["top_k"] = *m.fitted_top_k();
  if (m.probe_max_bits_per_byte) out["probe_max_bits_per_byte"] = *m.probe_max_bits_per_byte;
  return out;
}

/// Number of experts, or the range when layers differ.
Json experts_per_layer(const ModuleTensors& tensors) {
  size_t least = SIZE_MAX;
  size_t most = 0;
  for (const auto& [layer, part] : tensors) {
    least = std::min(least, part.experts.size());
    most = std::max(most, part.experts.size());
  }
  if (least == most) return most;
  return fmt::format("{} to {}", most == 0 ? 0 : least, most);
}

/// An adapter: what its configuration says, and its tensors.
Result<Json> inspect_adapter(const std::string& dir, const Manifest& manifest) {
  Json out = manifest_json(manifest);
  if (manifest.derived) {
    for (const char* unknown : {"backbone", "hidden_size", "layers"}) out.erase(unknown);
  }
  out.erase("attach");
  const Result<ModuleFile> config = ModuleFile::open(dir, kAdapterConfigFile);
  if (!config.ok()) return config.status();
  const Result<std::string> text = config->text(kMaxAdapterConfigBytes);
  if (!text.ok()) return text.status();
  const Result<LoraConfig> lora = LoraConfig::parse(*text, config->label());
  if (!lora.ok()) return lora.status();
  if (!lora->base_model.empty()) out["base_model"] = lora->base_model;
  out["rank"] = lora->rank;
  std::map<std::string, uint64_t> by_dtype;
  uint64_t count = 0;
  uint64_t bytes = 0;
  uint64_t memory = 0;
  for (const ManifestFile& entry : manifest.files) {
    if (!entry.path.ends_with(".safetensors")) continue;
    const Result<ModuleFile> file = ModuleFile::open(dir, entry.path);
    if (!file.ok()) return file.status();
    const Result<SafetensorsFile> tensors = file->header();
    if (!tensors.ok()) return tensors.status();
    add_tensors(*tensors, by_dtype, count, bytes);
    memory += tensors->file_bytes() + built_bytes(*tensors, /*experts=*/1);
  }
  out["tensors"] = count;
  out["dtype"] = dtypes_of(by_dtype);
  out["bytes"] = bytes;
  out["memory"] = memory;
  return out;
}

/// What it is made of, as far as headers tell.
Result<Json> add_assembly(const std::string& dir, const Manifest& manifest, Json out) {
  const auto source = AssemblySource::open(dir, manifest);
  if (!source.ok()) return source.status();
  const Result<AssemblyPlan> plan = (*source)->plan({});
  if (!plan.ok()) return plan.status();
  out["recipe"] = manifest.assembly->recipe;
  for (const RecipeParent& parent : (*source)->recipe().parents) {
    out["parents"][parent.path] = parent.lambda;
  }
  out["tensors"] = plan->outputs.size();
  out["bytes"] = plan->output_bytes();
  return out;
}

Result<Json> inspect_module(const std::string& dir) {
  Result<Manifest> manifest = read_manifest(dir, Sealing::kUnsealed);
  if (!manifest.ok()) return manifest.status();
  CHIMERA_RETURN_IF_ERROR(complete_manifest(dir, nullptr, &*manifest));
  Json out = manifest_json(*manifest);
  if (manifest->kind == ModuleKind::kLibrary) return out;
  if (manifest->kind == ModuleKind::kLora) return inspect_adapter(dir, *manifest);
  if (manifest->kind == ModuleKind::kAssembly) return add_assembly(dir, *manifest, std::move(out));
  std::vector<SafetensorsFile> files;
  std::map<std::string, uint64_t> by_dtype;
  uint64_t count = 0;
  uint64_t bytes = 0;
  for (const ManifestFile& entry : manifest->files) {
    if (!entry.path.ends_with(".safetensors")) continue;
    const Result<ModuleFile> file = ModuleFile::open(dir, entry.path);
    if (!file.ok()) return file.status();
    Result<SafetensorsFile> weights = file->safetensors();
    if (!weights.ok()) return weights.status();
    add_tensors(*weights, by_dtype, count, bytes);
    if (manifest->shared && manifest->shared->file == entry.path) {
      out["shared_tensors"] = weights->tensors().size();
      out["shared_bytes"] = weights->file_bytes();
      out["weight"] = manifest->shared->weight;
      continue;
    }
    files.push_back(std::move(*weights));
  }
  const Result<ModuleTensors> tensors = sort_module_tensors(files);
  if (!tensors.ok()) return tensors.status();
  out["moe_layers"] = tensors->size();
  out["experts_per_layer"] = experts_per_layer(*tensors);
  out["tensors"] = count;
  out["dtype"] = dtypes_of(by_dtype);
  out["bytes"] = bytes;
  return out;
}

/// Stands in for a backbone's configuration when none is given: it lets through what only a
/// backbone could contradict.
ModelConfig permissive_config(const Manifest& manifest) {
  ModelConfig config;
  config.hidden_size = manifest.hidden_size;
  config.num_layers = manifest.layers ? manifest.layers->back() + 1 : 0;
  config.num_experts = INT64_MAX;
  config.gate_kind = GateKind::kGroupedSigmoid;
  config.n_group = INT64_MAX;
  return config;
}

/// The layers that the gate rows or the slots of a library module name.
Result<int64_t> count_library_layers(const std::string& dir, const Manifest& manifest) {
  int64_t layers =
      manifest.library->slots.empty() ? 0 : manifest.library->slots.rbegin()->first + 1;
  if (manifest.library->gate.empty()) return layers;
  const Result<ModuleFile> file = ModuleFile::open(dir, manifest.library->gate);
  if (!file.ok()) return file.status();
  const Result<SafetensorsFile> gate = file->safetensors();
  if (!gate.ok()) return gate.status();
  const auto rows = std::count_if(gate->tensors().begin(), gate->tensors().end(),
                                  [](const auto& t) { return t.name.ends_with(".gate.weight"); });
  return std::max<int64_t>(layers, rows);
}

/// Without a backbone nobody knows which layers `all` are: those that the payload has.
Status read_layers(const std::string& dir, const Manifest& manifest, ModelConfig& config) {
  for (const ManifestFile& entry : manifest.files) {
    const bool shared = manifest.shared && manifest.shared->file == entry.path;
    if (shared || !entry.path.ends_with(".safetensors")) continue;
    const Result<ModuleFile> file = ModuleFile::open(dir, entry.path);
    if (!file.ok()) return file.status();
    std::vector<SafetensorsFile> files;
    Result<SafetensorsFile> weights = file->safetensors();
    if (!weights.ok()) return weights.status();
    files.push_back(std::move(*weights));
    const Result<ModuleTensors> tensors = sort_module_tensors(files);
    if (!tensors.ok()) return tensors.status();
    for (const auto& [layer, part] : *tensors) {
      config.num_layers = std::max(config.num_layers, layer + 1);
      config.moe_layers.resize(static_cast<size_t>(config.num_layers), 0);
      config.moe_layers[static_cast<size_t>(layer)] = 1;
    }
  }
  return {};
}

/// `backbone` may be null.
Status verify_assembly(const std::string& dir, const Manifest& manifest,
                       const BackboneInfo* backbone) {
  const auto source = AssemblySource::open(dir, manifest);
  if (!source.ok()) return source.status();
  if (backbone != nullptr) {
    CHIMERA_RETURN_IF_ERROR(check_assembly_outline(**source, manifest, *backbone));
  }
  return (*source)->verify();
}

}  // namespace

Result<ModulePayload> open_payload_alone(const std::string& dir, const Manifest& manifest) {
  ModelConfig config = permissive_config(manifest);
  if (!manifest.layers) CHIMERA_RETURN_IF_ERROR(read_layers(dir, manifest, config));
  return open_module_payload(dir, manifest, config, manifest.backbone_fingerprint);
}

Result<Json> inspect_directory(const std::string& dir, Status* verdict) {
  Status ignored;
  if (exists(dir + "/module.yaml") || is_bare_adapter(dir)) return inspect_module(dir);
  if (exists(dir + "/config.json") || is_gguf_file(dir))
    return inspect_checkpoint(dir, verdict ? verdict : &ignored);
  return Status(Code::kNotFound,
                dir + ": found neither module.yaml nor config.json (expected one of them)",
                "Point to a module directory, to a Hugging Face checkpoint or to a GGUF file.");
}

Result<Json> verify_module(const std::string& dir, const std::string& backbone_dir) {
  Result<Manifest> manifest = read_manifest(dir);
  if (!manifest.ok()) return manifest.status();
  CHIMERA_RETURN_IF_ERROR(complete_manifest(dir, nullptr, &*manifest));
  return verify_manifest(dir, *manifest, backbone_dir);
}

Result<Json> verify_manifest(const std::string& dir, const Manifest& manifest,
                             const std::string& backbone_dir) {
  ModelConfig config = permissive_config(manifest);
  std::string fingerprint = manifest.backbone_fingerprint;
  std::vector<std::string> checks{"manifest", "digests", "tensors", "finite"};
  if (!backbone_dir.empty()) {
    const Result<Checkpoint> checkpoint = Checkpoint::open(backbone_dir, Residency::kMapped);
    if (!checkpoint.ok()) return checkpoint.status();
    Result<ModelConfig> parsed = read_model_config(*checkpoint);
    if (!parsed.ok()) return parsed.status();
    Result<std::string> computed = backbone_fingerprint(*checkpoint, "");
    if (!computed.ok()) return computed.status();
    config = std::move(*parsed);
    fingerprint = std::move(*computed);
    checks.push_back("fingerprint");
    checks.push_back("fit");
  } else if (!manifest.layers && !manifest.assembly && manifest.kind != ModuleKind::kLora) {
    if (manifest.library) {
      const Result<int64_t> layers = count_library_layers(dir, manifest);
      if (!layers.ok()) return layers.status();
      config.num_layers = *layers;
    } else {
      CHIMERA_RETURN_IF_ERROR(read_layers(dir, manifest, config));
    }
  }
  if (manifest.library) {
    // What can be known without running its code; chimera-plugin-check does the rest.
    const Result<LibraryPackage> package = open_library_package(dir, manifest, config, fingerprint);
    if (!package.ok()) return package.status();
    checks[2] = "elf note";
    checks[3] = "gate rows";
  } else if (manifest.kind == ModuleKind::kLora) {
    const bool fit = !backbone_dir.empty();
    CHIMERA_RETURN_IF_ERROR(check_lora_module(dir, manifest, fit ? &config : nullptr, fingerprint));
  } else if (manifest.kind == ModuleKind::kBundle) {
    const bool fit = !backbone_dir.empty();
    CHIMERA_RETURN_IF_ERROR(
        verify_bundle(dir, manifest, config, fingerprint, fit ? &config : nullptr));
  } else if (manifest.assembly) {
    const BackboneInfo backbone{config, fingerprint};
    CHIMERA_RETURN_IF_ERROR(
        verify_assembly(dir, manifest, backbone_dir.empty() ? nullptr : &backbone));
    checks[2] = "parents";
    checks.erase(checks.begin() + 3);  // numbers are looked at when they are merged
  } else {
    const Result<ModulePayload> payload = open_module_payload(dir, manifest, config, fingerprint);
    if (!payload.ok()) return payload.status();
  }
  Json out;
  out["module"] = manifest.name;
  out["version"] = manifest.version;
  out["digest"] = manifest.digest;
  out["verified"] = checks;
  return out;
}

Result<std::string> checkpoint_fingerprint(const std::string& dir) {
  const Result<Checkpoint> checkpoint = Checkpoint::open(dir, Residency::kMapped);
  if (!checkpoint.ok()) return checkpoint.status();
  return backbone_fingerprint(*checkpoint, "");
}

}  // namespace chimera
