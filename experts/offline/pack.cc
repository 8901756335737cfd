#include "experts/offline/pack.h"

#include <fmt/format.h>

#include <algorithm>
#include <filesystem>
#include <map>
#include <set>
#include <vector>

#include "base/io/digest.h"
#include "base/io/env.h"
#include "base/threads/each_parallel.h"
#include "base/threads/thread_pool.h"
#include "compute/tensor/packed_tensor.h"
#include "experts/kinds/weights.h"
#include "experts/module/files.h"
#include "experts/module/payload.h"
#include "experts/offline/cut_output.h"
#include "experts/offline/module_report.h"

namespace chimera {
namespace {

constexpr uint64_t kMostShards = 32;

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

bool is_weights_file(const ManifestFile& file) { return file.path.ends_with(".safetensors"); }

/// Beside the files that stay as they are a manifest has room for so many.
uint64_t most_shards(const Manifest& manifest) {
  const auto weights = std::count_if(manifest.files.begin(), manifest.files.end(), is_weights_file);
  const size_t others = manifest.files.size() - static_cast<size_t>(weights);
  return std::clamp<uint64_t>(kMostModuleFiles - std::min(kMostModuleFiles, others), 1,
                              kMostShards);
}

/// Runs of tensors, in their order; all but the last have at least `most` bytes.
std::vector<std::vector<TensorView>> shards_of(const std::vector<TensorView>& tensors,
                                               uint64_t most) {
  std::vector<std::vector<TensorView>> shards(1);
  uint64_t used = 0;
  for (const TensorView& tensor : tensors) {
    if (used >= most) {
      shards.emplace_back();
      used = 0;
    }
    used += tensor.bytes.size();
    shards.back().push_back(tensor);
  }
  return shards;
}

/// Writes the tensors into `dir`; the files with their digests.
Result<std::vector<ManifestFile>> write_weights(const ModulePayload& payload,
                                                const std::vector<TensorView>& tensors,
                                                uint64_t shard_bytes, const std::string& dir) {
  const auto shards = shards_of(tensors, shard_bytes);
  const auto metadata = packed_metadata(payload);
  std::vector<ManifestFile> files(shards.size());
  const auto write = [&](int64_t i) -> Status {
    const auto at = static_cast<size_t>(i);
    ManifestFile& file = files[at];
    file.path = shards.size() == 1
                    ? "weights.safetensors"
                    : fmt::format("weights-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    const std::string path = dir + "/" + file.path;
    CHIMERA_RETURN_IF_ERROR(write_safetensors(path, shards[at], metadata));
    Result<std::string> digest = sha256_of_file(path);
    if (digest.ok()) file.sha256 = std::move(*digest);
    return digest.status();
  };
  const Status written = for_each_parallel(static_cast<int64_t>(shards.size()), write);
  if (!written.ok()) return written;
  return files;
}

Status write_module(const ModulePayload& payload, const PackOptions& options,
                    const std::string& dir, PackReport& report) {
  const auto tensors = packed_tensors(payload, options.precision, report);
  if (!tensors.ok()) return tensors.status().with_context("module " + payload.manifest.name);
  const uint64_t shard =
      std::max(options.shard_bytes, report.bytes / most_shards(payload.manifest) + 1);
  auto files = write_weights(payload, *tensors, shard, dir);
  if (!files.ok()) return files.status();
  Manifest manifest = payload.manifest;
  manifest.files = std::move(*files);
  for (const ManifestFile& entry : payload.manifest.files) {
    if (is_weights_file(entry)) continue;
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
  const Result<Manifest> written = read_manifest(out->partial());
  if (!written.ok()) return written.status();
  CHIMERA_RETURN_IF_ERROR(out->commit());
  return report;
}

}  // namespace chimera
