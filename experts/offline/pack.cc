#include "experts/offline/pack.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <vector>

#include "base/io/digest.h"
#include "base/io/env.h"
#include "base/threads/thread_pool.h"
#include "compute/tensor/packed_tensor.h"
#include "experts/kinds/weights.h"
#include "experts/module/files.h"
#include "experts/module/payload.h"
#include "experts/offline/cut_output.h"
#include "experts/offline/module_report.h"

namespace chimera {
namespace {

constexpr const char* kWeightsFile = "weights.safetensors";

/// One matrix on its way.
struct Packing {
  std::string name;
  StoredProjection stored;
  BlockShape block;
  Result<ExpertWeight> made = ExpertWeight{};
};

std::vector<Packing> matrices_of(const ModuleTensors& tensors) {
  std::vector<Packing> out;
  for (const auto& [layer, part] : tensors) {
    for (const auto& [e, expert] : part.experts) {
      const StoredExpert stored = stored_expert(expert);
      for (size_t p = 0; p < stored.size(); ++p) {
        out.push_back({fmt::format("layers.{}.experts.{}.{}.weight", layer, e, kProjections[p]),
                       stored[p], part.fp8_block});
      }
    }
  }
  return out;
}

/// Packed matrices first, so that each begins where the one before it was filled up to.
Result<std::vector<TensorView>> packed_tensors(const ModulePayload& payload, Precision precision,
                                               PackReport& report) {
  std::vector<Packing> all = matrices_of(payload.tensors);
  ThreadPool pool(auto_threads());
  pool.parallel_for(static_cast<int64_t>(all.size()), 1, [&](int64_t begin, int64_t end) {
    for (auto i = static_cast<size_t>(begin); i < static_cast<size_t>(end); ++i)
      all[i].made = build_weight(all[i].stored, precision, all[i].block);
  });
  std::vector<TensorView> out;
  std::set<std::string> gone;  // into packed matrices
  for (const Packing& one : all) {
    if (!one.made.ok()) return one.made.status();
    if (one.made->quantised) continue;  // MXFP4 with scales too far apart for a format of its own
    out.push_back(packed_tensor(one.name, one.made->matrix));
    gone.insert(one.stored.weight.tensor.name);
    if (one.stored.scale) gone.insert(one.stored.scale->tensor.name);
  }
  report.packed = out.size();
  for (const SafetensorsFile& file : payload.files) {
    for (const TensorView& tensor : file.tensors()) {
      if (!gone.contains(tensor.name)) out.push_back(tensor);
    }
  }
  report.kept = out.size() - report.packed;
  for (const TensorView& tensor : out) report.bytes += tensor.bytes.size();
  return out;
}

std::map<std::string, std::string> packed_metadata(const ModulePayload& payload) {
  std::map<std::string, std::string> metadata{{"format", "pt"}};
  for (const SafetensorsFile& file : payload.files) {
    const auto block = file.metadata().find(kBlockSizeKey);
    if (block != file.metadata().end()) metadata.insert(*block);
  }
  return metadata;
}

/// What is no weights, as it is.
Status copy_file(const std::string& from, const ManifestFile& entry, const std::string& to) {
  const Result<ModuleFile> file = ModuleFile::open(from, entry.path);
  if (!file.ok()) return file.status();
  const Result<uint64_t> size = file->size();
  if (!size.ok()) return size.status();
  const Result<std::string> text = file->text(static_cast<size_t>(*size));
  if (!text.ok()) return text.status();
  CHIMERA_RETURN_IF_ERROR(check_payload_digest(file->label(), sha256_of(*text), entry.sha256));
  const std::string path = to + "/" + entry.path;
  std::error_code error;
  std::filesystem::create_directories(std::filesystem::path(path).parent_path(), error);
  if (error) return errno_status(path, error.value());
  return write_file_durably(Env::system(), path, *text, 0644);
}

Status check_packable(const Manifest& manifest, Precision precision) {
  if (!packed_format(precision)) {
    return {Code::kInvalidArgument, fmt::format("precision: found {} (expected q8 or q4)",
                                                kPrecisionNames.name(precision))};
  }
  if (manifest.kind == ModuleKind::kWeights) return {};
  return {Code::kFailedPrecondition,
          fmt::format("module {}: found kind {} (expected weights)", manifest.name,
                      kModuleKindNames.name(manifest.kind)),
          "Other kinds hold no weights of experts that could be packed."};
}

Status write_module(const ModulePayload& payload, const PackOptions& options,
                    const std::string& dir, PackReport& report) {
  const auto tensors = packed_tensors(payload, options.precision, report);
  if (!tensors.ok()) return tensors.status().with_context("module " + payload.manifest.name);
  const std::string weights = dir + "/" + kWeightsFile;
  CHIMERA_RETURN_IF_ERROR(write_safetensors(weights, *tensors, packed_metadata(payload)));
  const Result<std::string> digest = sha256_of_file(weights);
  if (!digest.ok()) return digest.status();
  Manifest manifest = payload.manifest;
  manifest.files = {{kWeightsFile, *digest}};
  for (const ManifestFile& entry : payload.manifest.files) {
    if (entry.path.ends_with(".safetensors")) continue;
    CHIMERA_RETURN_IF_ERROR(copy_file(options.from, entry, dir));
    manifest.files.push_back(entry);
  }
  manifest.precision = options.precision;
  manifest.parents.push_back(fmt::format("{{\"digest\": \"{}\", \"packed\": \"{}\"}}",
                                         payload.manifest.digest,
                                         kPrecisionNames.name(options.precision)));
  const std::string yaml = manifest_yaml(manifest);
  report.digest = sha256_of(yaml);
  return write_file_durably(Env::system(), dir + "/module.yaml", yaml, 0644);
}

}  // namespace

Result<PackReport> pack_module(const PackOptions& options) {
  const Result<Manifest> manifest = read_manifest(options.from);
  if (!manifest.ok()) return manifest.status();
  CHIMERA_RETURN_IF_ERROR(check_packable(*manifest, options.precision));
  Result<OutputDirectory> out = OutputDirectory::create(options.out);
  if (!out.ok()) return out.status();
  const Result<ModulePayload> payload = open_payload_alone(options.from, *manifest);
  if (!payload.ok()) return payload.status();
  PackReport report;
  report.name = manifest->name;
  report.version = manifest->version;
  CHIMERA_RETURN_IF_ERROR(write_module(*payload, options, out->partial(), report));
  CHIMERA_RETURN_IF_ERROR(out->commit());
  return report;
}

}  // namespace chimera
