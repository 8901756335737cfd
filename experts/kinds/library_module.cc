#include "experts/kinds/library_module.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <optional>

#include "backbone/checkpoint/block_types_entry.h"
#include "base/io/digest.h"
#include "experts/isolation/backend.h"
#include "experts/library/library_expert.h"
#include "experts/module/files.h"
#include "experts/module/payload.h"

namespace chimera {
namespace {

// Largest accepted library: weights of a big expert compiled in, still far below memory.
constexpr size_t kMaxLibraryBytes = size_t{4} << 30;

struct Payload {
  std::vector<SafetensorsFile> weights;  // for the plugin
  std::optional<SafetensorsFile> gate;
  std::shared_ptr<const SealedFile> image;
  ElfNote note;
};

Status check_file_mode(const ModuleFile& file) {
  const Result<uint32_t> mode = file.mode();
  if (!mode.ok()) return mode.status();
  if ((*mode & 0022u) == 0) return {};
  return {Code::kPermissionDenied,
          fmt::format("{}: found mode {:o} (expected no write access for group and others, as it "
                      "is code)",
                      file.label(), *mode & 0777u),
          "chmod go-w"};
}

/// Reads the library once; what is hashed is what is inspected and sealed.
Status open_library(const ModuleFile& file, const ManifestFile& entry, const std::string& module,
                    DigestMemo* digests, Payload* payload) {
  CHIMERA_RETURN_IF_ERROR(check_file_mode(file));
  const Result<std::string> bytes = file.text(kMaxLibraryBytes);
  if (!bytes.ok()) return bytes.status();
  const auto view = std::as_bytes(std::span(*bytes));
  CHIMERA_RETURN_IF_ERROR(
      check_payload_digest(file.label(), sha256_of(view, digests), entry.sha256));
  Result<ElfNote> note = read_elf_note(view, file.label());
  if (!note.ok()) return note.status();
  payload->note = std::move(*note);
  Result<SealedFile> image = SealedFile::create(library_image_name(module, entry.sha256), view);
  if (!image.ok()) return image.status();
  payload->image = std::make_shared<const SealedFile>(std::move(*image));
  return {};
}

Result<Payload> open_files(const std::string& dir, const Manifest& m, DigestMemo* digests) {
  Payload payload;
  for (const ManifestFile& entry : m.files) {
    const Result<ModuleFile> file = ModuleFile::open(dir, entry.path);
    if (!file.ok()) return file.status();
    if (entry.path == m.library->file) {
      CHIMERA_RETURN_IF_ERROR(open_library(*file, entry, m.name, digests, &payload));
      continue;
    }
    if (!entry.path.ends_with(".safetensors")) {
      const Result<std::string> digest = file->sha256();
      if (!digest.ok()) return digest.status();
      CHIMERA_RETURN_IF_ERROR(check_payload_digest(file->label(), *digest, entry.sha256));
      continue;
    }
    Result<SafetensorsFile> tensors = file->safetensors();
    if (!tensors.ok()) return tensors.status();
    CHIMERA_RETURN_IF_ERROR(
        check_payload_digest(file->label(), tensors->sha256(digests), entry.sha256));
    if (entry.path == m.library->gate) {
      payload.gate.emplace(std::move(*tensors));
    } else {
      payload.weights.push_back(std::move(*tensors));
    }
  }
  return payload;
}

/// "layers.3.gate.weight" -> 3 and whether it is the weight; nullopt for any other name.
std::optional<std::pair<int64_t, bool>> parse_gate_name(std::string_view name) {
  constexpr std::string_view kPrefix = "layers.";
  if (!name.starts_with(kPrefix)) return std::nullopt;
  name.remove_prefix(kPrefix.size());
  int64_t layer = 0;
  const auto parsed = std::from_chars(name.data(), name.data() + name.size(), layer);
  if (parsed.ec != std::errc() || layer < 0) return std::nullopt;
  name.remove_prefix(static_cast<size_t>(parsed.ptr - name.data()));
  if (name == ".gate.weight") return std::pair(layer, true);
  if (name == ".gate.bias") return std::pair(layer, false);
  return std::nullopt;
}

Status read_gate_tensor(const TensorView& tensor, const Manifest& m, const ModelConfig& config,
                        std::map<int64_t, ModuleLayer>* layers) {
  const auto name = parse_gate_name(tensor.name);
  if (!name) {
    return {Code::kInvalidArgument,
            fmt::format("{}: found the tensor {} (expected layers.L.gate.weight and "
                        "layers.L.gate.bias only)",
                        m.library->gate, tensor.name),
            "Tensors for the plugin belong into another file of the module."};
  }
  const auto [layer, is_weight] = *name;
  if (layer >= config.num_layers || tensor.shape.empty() || tensor.shape[0] < 1) {
    return {Code::kFailedPrecondition,
            fmt::format("{}: found {} {} (expected layers 0 to {} and at least one row)",
                        m.library->gate, tensor.name, shape_string(tensor.shape),
                        config.num_layers - 1)};
  }
  CHIMERA_RETURN_IF_ERROR(check_finite(tensor));
  const int64_t n = tensor.shape[0];
  Result<std::vector<float>> values =
      is_weight ? matrix_to_f32(tensor, n, config.hidden_size) : to_f32(tensor, n);
  if (!values.ok()) return values.status().with_context(m.library->gate);
  ModuleLayer& part = (*layers)[layer];
  (is_weight ? part.gate_weight : part.gate_bias) = std::move(*values);
  return {};
}

/// The layers a manifest asks for: `layers`, or all.
std::vector<int64_t> wanted_layers(const Manifest& m, const ModelConfig& config) {
  if (m.layers) return *m.layers;
  std::vector<int64_t> all;
  for (int64_t layer = 0; layer < config.num_layers; ++layer) all.push_back(layer);
  return all;
}

/// Experts per layer, from the gate rows (append) or the slots (replace).
Result<std::map<int64_t, int64_t>> count_experts(const Manifest& m, const ModelConfig& config,
                                                 std::map<int64_t, ModuleLayer>* layers) {
  std::map<int64_t, int64_t> experts;
  const bool replace = m.attach == Attach::kReplace;
  for (const int64_t layer : wanted_layers(m, config)) {
    const auto slots = m.library->slots.find(layer);
    ModuleLayer& part = (*layers)[layer];
    const auto rows = static_cast<int64_t>(part.gate_weight.size()) / config.hidden_size;
    const int64_t n = !replace ? rows
                      : slots == m.library->slots.end()
                          ? 0
                          : static_cast<int64_t>(slots->second.size());
    const bool bias_fits =
        part.gate_bias.empty() || static_cast<int64_t>(part.gate_bias.size()) == n;
    if (n == 0 || !bias_fits || (replace && rows != 0 && rows != n)) {
      return Status(Code::kInvalidArgument,
                    fmt::format("layer {}: found {} gate rows, {} biases, {} slots (expected {})",
                                layer, rows, part.gate_bias.size(),
                                slots == m.library->slots.end() ? 0 : slots->second.size(),
                                replace ? "slots, and as many rows and biases or none"
                                        : "gate rows, and as many biases or none"),
                    "The keys `layers` and library.slots and the file library.gate must agree.");
    }
    if (replace) part.slots = slots->second;
    experts[layer] = n;
  }
  if (layers->size() == experts.size()) return experts;
  return Status(
      Code::kInvalidArgument,
      fmt::format("{}: found gate rows of {} layers (expected those of `layers` only, {})",
                  m.library->gate, layers->size(), experts.size()));
}

/// As the files store them: a plugin sees blocks as the bytes that they are.
std::vector<TensorView> sorted_tensors(const std::vector<SafetensorsFile>& files) {
  std::vector<TensorView> all;
  for (const SafetensorsFile& file : files) {
    for (const TensorView& tensor : file.tensors()) all.push_back(stored_form(tensor));
  }
  std::sort(all.begin(), all.end(), [](const auto& a, const auto& b) { return a.name < b.name; });
  return all;
}

Status check_note(const Manifest& m, const ElfNote& note) {
  const std::string where = fmt::format("{}: ELF note", m.library->file);
  const std::string hint = "Copy library and module.yaml of the same build.";
  if (!m.library->id.empty() && note.plugin_count == 1 && note.id != m.library->id) {
    return {Code::kFailedPrecondition,
            fmt::format("{}: found id {} (expected {}, as library.id in module.yaml says)", where,
                        note.id, m.library->id),
            hint};
  }
  if (note.version != m.version) {
    return {Code::kFailedPrecondition,
            fmt::format("{}: found version {} (expected {}, as module.yaml says)", where,
                        note.version, m.version),
            hint};
  }
  return {};
}

}  // namespace

Result<LibraryPackage> open_library_package(const std::string& dir, const ModelConfig& config,
                                            const std::string& fingerprint, DigestMemo* digests) {
  Result<Manifest> manifest = read_manifest(dir);
  if (!manifest.ok()) return manifest.status();
  return open_library_package(dir, std::move(*manifest), config, fingerprint, digests);
}

Result<LibraryPackage> open_library_package(const std::string& dir, Manifest manifest,
                                            const ModelConfig& config,
                                            const std::string& fingerprint, DigestMemo* digests) {
  const std::string label = "module " + manifest.name;
  CHIMERA_RETURN_IF_ERROR(check_module_fit(manifest, config, fingerprint));
  Result<Payload> payload = open_files(dir, manifest, digests);
  if (!payload.ok()) return payload.status().with_context(label);
  CHIMERA_RETURN_IF_ERROR(check_note(manifest, payload->note).with_context(label));

  LibraryPackage package;
  if (payload->gate) {
    for (const TensorView& tensor : payload->gate->tensors()) {
      CHIMERA_RETURN_IF_ERROR(
          read_gate_tensor(tensor, manifest, config, &package.layers).with_context(label));
    }
  }
  Result<std::map<int64_t, int64_t>> experts = count_experts(manifest, config, &package.layers);
  if (!experts.ok()) return experts.status().with_context(label);
  package.source = {manifest.name,
                    manifest.version,
                    dir,
                    *manifest.library,
                    std::move(payload->note),
                    std::move(payload->image),
                    sorted_tensors(payload->weights),
                    config.hidden_size,
                    fingerprint,
                    std::move(*experts)};
  package.manifest = std::move(manifest);
  return package;
}

namespace {

Result<std::shared_ptr<LibraryBackend>> open_backend(
    const LibrarySource& source, const std::shared_ptr<LibraryRuntime>& runtime) {
  switch (source.spec.isolation) {
    case Isolation::kProcess:
      return open_isolated(source, runtime);
    case Isolation::kInProcess:
      return open_in_process(source, runtime);
  }
  return Status(Code::kInternal, source.module + ": an isolation without a backend");
}

}  // namespace

Result<std::shared_ptr<const Module>> load_library_module(const std::string& dir,
                                                          const BackboneInfo& backbone) {
  Result<Manifest> manifest = read_manifest(dir);
  if (!manifest.ok()) return manifest.status();
  if (backbone.libraries && manifest->library) {
    CHIMERA_RETURN_IF_ERROR(backbone.libraries->check_demands(manifest->name, *manifest->library));
  }
  Result<LibraryPackage> package = open_library_package(
      dir, std::move(*manifest), backbone.config, backbone.fingerprint, backbone.digests.get());
  if (!package.ok()) return package.status();
  if (backbone.accept) CHIMERA_RETURN_IF_ERROR(backbone.accept(dir, package->manifest));
  if (backbone.libraries == nullptr) {
    return Status(Code::kUnimplemented,
                  fmt::format("module {}: found kind library (expected weights: this program runs "
                              "no plugin code)",
                              package->manifest.name));
  }
  const LibrarySpec& spec = *package->manifest.library;
  const auto limit = std::chrono::steady_clock::now() + backbone.libraries->options().ceilings.load;
  Result<std::shared_ptr<LibraryBackend>> backend =
      open_backend(package->source, backbone.libraries);
  if (!backend.ok()) return backend.status();
  CHIMERA_RETURN_IF_ERROR(self_test(**backend, package->source, limit));

  auto module = std::make_shared<Module>();
  for (auto& [layer, part] : package->layers) {
    for (int64_t e = 0; e < package->source.experts[layer]; ++e) {
      part.experts.push_back(std::make_shared<LibraryExpert>(*backend, layer, e, spec.on_failure));
    }
    module->layers.emplace(layer, std::move(part));
  }
  module->manifest = std::move(package->manifest);
  module->dir = dir;
  module->library = std::move(*backend);
  return std::shared_ptr<const Module>(std::move(module));
}

}  // namespace chimera
