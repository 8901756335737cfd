#include "experts/offline/assembly/assemble.h"

#include <fmt/format.h>

#include <algorithm>
#include <set>

#include "backbone/checkpoint/check.h"
#include "backbone/checkpoint/fingerprint.h"
#include "base/io/digest.h"
#include "base/json/reader.h"
#include "base/json/writer.h"
#include "base/version.h"
#include "experts/assembly/assembler.h"
#include "experts/module/checkpoint_check.h"
#include "experts/offline/assembly/partial_output.h"
#include "experts/offline/assembly/writer.h"
#include "experts/offline/cut_output.h"

namespace chimera {
namespace {

constexpr const char* kRecordName = "assembly.json";
// Of the memory: what the threads may hold beside the window of mapped parents.
constexpr uint64_t kThreadsPart = 4;

/// Bytes that one thread holds at most: a chunk of each parent, of sums and of the result; and
/// where a stack stores experts transposed or interleaved, all of one slice.
uint64_t bytes_per_thread(const AssemblyPlan& plan) {
  uint64_t slice_bytes = 0, widest = 0;
  for (const OutputTensor& output : plan.outputs) {
    for (const OutputSlice& slice : output.slices) {
      uint64_t whole = 0;
      bool dense = true;
      for (const OutputPiece& piece : slice.pieces) {
        dense = dense && piece.dense();
        for (const TensorData* data : plan.tensors[piece.tensor].parents) {
          widest = std::max(widest, static_cast<uint64_t>(data->cols()));
          if (!piece.dense() || !data->dense()) whole += data->stored_bytes(data->rows());
        }
      }
      slice_bytes = std::max(slice_bytes, whole + (dense ? 0 : slice.bytes));
    }
  }
  const uint64_t elements = std::max<uint64_t>(kChunkElements, widest);
  const uint64_t each = sizeof(float) * plan.parents.size() + sizeof(double) + 2 * sizeof(float);
  return slice_bytes + elements * each;
}

class Assembly {
 public:
  Assembly(const AssemblyPlan& plan, const AssembleOptions& options, int threads)
      : plan_(plan), options_(options), pool_(threads) {}

  Result<Json> run() {
    Result<PartialOutput> out = PartialOutput::open(*options_.env, options_.out_dir, key());
    if (!out.ok()) return out.status();
    dir_ = out->dir();
    const uint64_t total = plan_.input_bytes() + plan_.output_bytes();
    WriteOptions write{options_.memory, {}, options_.env};
    if (options_.progress) {
      write.progress = [&](uint64_t done) { options_.progress(done, total); };
    }
    Result<std::vector<WrittenShard>> shards = write_shards(plan_, dir_, pool_, write);
    if (!shards.ok()) return shards.status();
    shards_ = std::move(*shards);
    CHIMERA_RETURN_IF_ERROR(find_digests());
    CHIMERA_RETURN_IF_ERROR(plan_.module_output() ? finish_module() : finish_checkpoint());
    CHIMERA_RETURN_IF_ERROR(out->commit());
    Json report;
    report[plan_.module_output() ? "module" : "checkpoint"] = options_.out_dir;
    size_t tensors = 0;
    for (const WrittenShard& shard : shards_) tensors += shard.tensors.size();
    report["tensors"] = tensors;
    report["files"] = shards_.size();
    report["resumed"] = out->resumed();
    return report;
  }

 private:
  /// What tells this run from another one, without reading the parents.
  std::string key() const {
    Sha256 hash;
    hash.update_field(version());
    hash.update_field(write_json(recipe_json(plan_.recipe)));
    for (const std::vector<size_t>& shard : plan_.shards) hash.update_u64(shard.size());
    for (const auto& parent : plan_.parents) {
      for (const TensorFile* file : parent->files()) {
        const FileIdentity& id = file->identity();
        hash.update_u64(id.device);
        hash.update_u64(id.inode);
        hash.update_u64(id.size);
        hash.update_u64(static_cast<uint64_t>(id.modified_ns));
      }
    }
    return hash.finish();
  }

  Status find_digests() {
    for (const auto& parent : plan_.parents) {
      Result<std::string> digest = parent_digest(*parent, options_.cache_dir, pool_);
      if (!digest.ok()) return digest.status();
      digests_.push_back(std::move(*digest));
    }
    return {};
  }

  Json record() const {
    Json out;
    out["chimera"] = "assembly/1";
    out["version"] = version();
    out["parents"] = Json::array();
    for (size_t i = 0; i < digests_.size(); ++i) {
      out["parents"].push_back(
          Json{{"digest", digests_[i]}, {"lambda", plan_.recipe.parents[i].lambda}});
    }
    const Json recipe = recipe_json(plan_.recipe);
    for (const auto& [key, value] : recipe.items()) out[key] = value;
    return out;
  }

  Status write_text(const std::string& name, const std::string& text) const {
    return write_file_durably(*options_.env, dir_ + "/" + name, text, 0644);
  }

  Status finish_checkpoint() const {
    const Checkpoint& base = plan_.parents[0]->checkpoint();
    if (shards_.size() > 1) CHIMERA_RETURN_IF_ERROR(write_index());
    CHIMERA_RETURN_IF_ERROR(copy_side_files(base, dir_));
    Result<std::string> config = edited_config(base);
    if (!config.ok()) return config.status();
    CHIMERA_RETURN_IF_ERROR(write_text("config.json", *config));
    CHIMERA_RETURN_IF_ERROR(write_text(kRecordName, write_json(record(), {.indent = 2}) + "\n"));
    const Result<Checkpoint> written = Checkpoint::open(dir_, Residency::kMapped);
    if (!written.ok()) return written.status();
    const Result<ModelConfig> parsed = read_model_config(*written);
    if (!parsed.ok()) return parsed.status();
    return check_checkpoint_tensors(*written, *parsed);
  }

  Status write_index() const {
    Json index = {{"metadata", {{"total_size", plan_.output_bytes()}}},
                  {"weight_map", Json::object()}};
    Json& map = *index.find("weight_map");
    for (const WrittenShard& shard : shards_) {
      for (const std::string& name : shard.tensors) map.append(name, shard.file);
    }
    return write_text("model.safetensors.index.json", write_json(index, {.indent = 2}) + "\n");
  }

  /// As the base's, unless the numbers are stored in another way.
  Result<std::string> edited_config(const Checkpoint& base) const {
    if (!plan_.changes_encoding()) return base.config_json();
    Result<Json> config =
        parse_json(base.config_json(), {.duplicates = DuplicateKeys::kLastCounts});
    if (!config.ok()) return config.status().with_context(base.dir() + "/config.json");
    const DType dtype = plan_.recipe.dtype.value_or(DType::kBF16);
    const std::string name = dtype == DType::kF32   ? "float32"
                             : dtype == DType::kF16 ? "float16"
                                                    : "bfloat16";
    for (Json* level : {&*config, config->find("text_config")}) {
      if (level == nullptr || !level->is_object()) continue;
      level->erase("quantization_config");
      for (const char* key : {"torch_dtype", "dtype"}) {
        if (level->contains(key)) (*level)[key] = name;
      }
    }
    return write_json(*config, {.indent = 2}) + "\n";
  }

  Status finish_module() {
    const bool of_modules = plan_.parents[0]->is_module();
    Manifest manifest;
    if (of_modules) {
      manifest = plan_.parents[0]->manifest();
      manifest.files.clear();
      manifest.parents.clear();
      // What was promised of the base's numbers.
      manifest.probe_text.clear();
      manifest.probe_max_bits_per_byte.reset();
      manifest.probe_tokens_digest.clear();
    } else {
      CHIMERA_RETURN_IF_ERROR(describe_differences(manifest));
    }
    manifest.name = manifest.domain = plan_.recipe.module;
    manifest.version = "1.0.0";
    manifest.description = fmt::format("Assembled from {} parents", plan_.parents.size());
    for (const WrittenShard& shard : shards_) {
      const Result<std::string> digest = sha256_of_file(dir_ + "/" + shard.file);
      if (!digest.ok()) return digest.status();
      manifest.files.push_back({shard.file, *digest});
    }
    const Json all = record();
    for (const Json& parent : all["parents"]) manifest.parents.push_back(write_json(parent));
    Json how;
    for (const auto& [key, value] : all.items()) {
      if (key != "parents") how[key] = value;
    }
    manifest.parents.push_back(write_json(how));
    CHIMERA_RETURN_IF_ERROR(write_text(kRecordName, write_json(all, {.indent = 2}) + "\n"));
    return write_text("module.yaml", manifest_yaml(manifest));
  }

  /// A module that replaces experts of the base.
  Status describe_differences(Manifest& manifest) const {
    const Parent& base = *plan_.parents[0];
    std::set<int64_t> layers;
    for (const WrittenShard& shard : shards_) {
      for (const std::string& name : shard.tensors) layers.insert(module_traits_of(name).layer);
    }
    if (layers.empty()) {
      return {Code::kFailedPrecondition,
              plan_.recipe.label + ": found no expert that differs from the base (expected some)",
              "Lower delta; chimera module diff shows where the parents differ."};
    }
    const Result<std::string> fingerprint =
        backbone_fingerprint(base.checkpoint(), options_.cache_dir);
    if (!fingerprint.ok()) return fingerprint.status();
    manifest.attach = Attach::kReplace;
    manifest.license = "unknown";
    manifest.backbone_fingerprint = *fingerprint;
    manifest.hidden_size = base.config().hidden_size;
    manifest.layers.emplace(layers.begin(), layers.end());
    return {};
  }

  const AssemblyPlan& plan_;
  const AssembleOptions& options_;
  ThreadPool pool_;
  std::string dir_;
  std::vector<WrittenShard> shards_;
  std::vector<std::string> digests_;
};

}  // namespace

Result<Json> assemble(const AssemblyPlan& plan, const AssembleOptions& options) {
  if (options.memory < kLeastAssemblyMemory) {
    return Status(Code::kInvalidArgument,
                  fmt::format("memory: found {} bytes (expected at least {})", options.memory,
                              kLeastAssemblyMemory));
  }
  const uint64_t each = bytes_per_thread(plan);
  const uint64_t fit = options.memory / kThreadsPart / each;
  if (fit == 0) {
    return Status(Code::kInvalidArgument,
                  fmt::format("memory: found {} bytes (expected at least {}: the parents' largest "
                              "rows, or experts that are stored transposed, are taken as a whole)",
                              options.memory, each * kThreadsPart));
  }
  const auto threads = std::min(static_cast<uint64_t>(options.threads), fit);
  return Assembly(plan, options, static_cast<int>(threads)).run();
}

}  // namespace chimera
