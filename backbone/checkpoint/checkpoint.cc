#include "backbone/checkpoint/checkpoint.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <filesystem>
#include <set>

#include "backbone/checkpoint/block_shape.h"
#include "backbone/checkpoint/index.h"
#include "backbone/checkpoint/quantized/quantized.h"
#include "backbone/checkpoint/safetensors.h"
#include "backbone/checkpoint/safetensors_header.h"
#include "backbone/gguf/gguf_file.h"
#include "backbone/gguf/gguf_model.h"
#include "base/quote.h"
#include "compute/tensor/tensor_source.h"

namespace chimera {
namespace {

using Files = std::vector<std::shared_ptr<const TensorFile>>;

constexpr size_t kMaxConfigBytes = 1u << 20;
// As many names as one shard's header may hold.
constexpr size_t kMaxIndexBytes = SafetensorsFile::kMaxHeaderBytes;

constexpr const char* kTokenizerName = "tokenizer.json";
constexpr const char* kSingleName = "model.safetensors";
constexpr const char* kIndexName = "model.safetensors.index.json";

bool exists(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0;
}

Result<std::shared_ptr<const TensorFile>> open_file(const std::string& path, Residency residency,
                                                    Env& env) {
  auto file = SafetensorsFile::open(path, residency, env);
  if (!file.ok()) return file.status();
  return std::shared_ptr<const TensorFile>(std::make_shared<SafetensorsFile>(std::move(*file)));
}

/// Every tensor of `file` must be in the index, and there under this file's name.
Status check_shard(const TensorFile& file, const std::string& shard, const ShardMap& index) {
  constexpr const char* kHint = "Download the checkpoint again; its files do not belong together.";
  for (const TensorView& t : file.tensors()) {
    const auto at = index.find(t.name);
    if (at == index.end()) {
      return Status(
          Code::kDataCorrupt,
          file.path() + ": holds tensor " + quote(t.name) + ", which the index does not list",
          kHint);
    }
    if (at->second != shard) {
      return Status(Code::kDataCorrupt,
                    file.path() + ": holds tensor " + quote(t.name) +
                        ", which the index says is in " + quote(at->second),
                    kHint);
    }
  }
  return Status();
}

Result<Files> open_shards(const std::string& dir, Residency residency, Env& env) {
  const std::string path = dir + "/" + kIndexName;
  const auto text = read_file(env, path, kMaxIndexBytes);
  if (!text.ok()) return text.status();
  const auto index = parse_shard_index(*text, path);
  if (!index.ok()) return index.status();
  std::set<std::string> shards;
  for (const auto& [tensor, shard] : *index) shards.insert(shard);
  Files files;
  for (const std::string& shard : shards) {
    auto file = open_file(dir + "/" + shard, residency, env);
    if (!file.ok()) return file.status().with_context(path);
    CHIMERA_RETURN_IF_ERROR(check_shard(**file, shard, *index));
    for (const auto& [tensor, where] : *index) {
      if (where == shard && (*file)->find(tensor) == nullptr) {
        return Status(
            Code::kDataCorrupt,
            (*file)->path() + ": lacks tensor " + quote(tensor) + ", which the index says is there",
            "Download the checkpoint again; its files do not belong together.");
      }
    }
    files.push_back(std::move(*file));
  }
  return files;
}

/// Bytes of all weights files in `dir`; a missing one is reported when it is opened.
uint64_t weights_bytes(const std::string& dir) {
  uint64_t bytes = 0;
  std::error_code error;
  for (const auto& file : std::filesystem::directory_iterator(dir, error)) {
    if (file.path().extension() != ".safetensors") continue;
    const uint64_t size = file.file_size(error);
    if (!error) bytes += size;
  }
  return bytes;
}

Result<Files> open_files(const std::string& dir, Residency residency, Env& env) {
  if (residency == Residency::kAutomatic) {
    residency = weights_bytes(dir) <= kCopyAtMost ? Residency::kCopied : Residency::kMapped;
  }
  const std::string single = dir + "/" + kSingleName;
  if (exists(single)) {
    auto file = open_file(single, residency, env);
    if (!file.ok()) return file.status();
    return Files{std::move(*file)};
  }
  if (exists(dir + "/" + kIndexName)) return open_shards(dir, residency, env);
  return Status(
      Code::kNotFound,
      dir + ": holds neither " + std::string(kSingleName) + " nor " + std::string(kIndexName),
      "Point to a Hugging Face checkpoint with safetensors weights.");
}

}  // namespace

Result<Checkpoint> Checkpoint::open_gguf(const std::string& path, Residency residency, Env& env) {
  Result<GgufModel> model = open_gguf_model(path, residency, env);
  if (!model.ok()) return model.status();
  Checkpoint checkpoint;
  checkpoint.dir_ = path;
  checkpoint.is_gguf_ = true;
  checkpoint.config_json_ = std::move(model->config_json);
  checkpoint.side_files_ = std::move(model->side_files);
  checkpoint.tokenizer_problem_ = std::move(model->tokenizer_problem);
  checkpoint.has_tokenizer_ =
      checkpoint.side_files_.contains(kTokenizerName) || !checkpoint.tokenizer_problem_.ok();
  checkpoint.files_ = std::move(model->files);
  return checkpoint;
}

Result<Checkpoint> Checkpoint::open(const std::string& dir, Residency residency, Env& env) {
  if (is_gguf_file(dir)) return open_gguf(dir, residency, env);
  if (dir.ends_with(".gguf") && !exists(dir)) {
    return Status(Code::kNotFound, dir + ": No such file or directory", "Check the path.");
  }
  Checkpoint checkpoint;
  checkpoint.dir_ = dir;
  auto config = read_file(env, dir + "/config.json", kMaxConfigBytes);
  if (!config.ok()) return config.status();
  checkpoint.config_json_ = std::move(*config);
  checkpoint.has_tokenizer_ = exists(dir + "/" + kTokenizerName);
  auto files = open_files(dir, residency, env);
  if (!files.ok()) return files.status();
  checkpoint.files_ = std::move(*files);
  auto packed = read_packed_record(dir, env);
  if (!packed.ok()) return packed.status();
  checkpoint.packed_ = std::move(*packed);
  checkpoint.read_quantization();
  const auto block = weight_block_size(checkpoint.config_json_, dir + "/config.json");
  if (!block.ok()) return block.status();
  checkpoint.block_shape_ = *block;
  return checkpoint;
}

void Checkpoint::read_quantization() {
  Result<std::optional<QuantizedCheckpoint>> native =
      read_quantized(config_json_, label("config.json"), dir_, files_);
  quantization_problem_ = native.status();
  if (!native.ok() || !*native) return;
  config_json_ = std::move((*native)->config_json);
  files_ = std::move((*native)->files);
  quantization_ = std::move((*native)->description);
}

Status Checkpoint::check_unpacked() const {
  for (const auto& file : files_) {
    for (const TensorView& t : file->tensors()) {
      if (!is_packed_type(t.dtype)) continue;
      return {Code::kFailedPrecondition,
              file->path() + ": tensor " + quote(t.name) + " is packed (expected its numbers)",
              "Use the checkpoint that it was packed from."};
    }
  }
  return {};
}

Status Checkpoint::check_packed_for(const PrecisionPlan& plan) const {
  if (!packed_ || same_packing(packed_->precision, plan)) return {};
  return {Code::kFailedPrecondition,
          dir_ + ": is packed for precision " + packed_->precision.name() + " (expected " +
              plan.name() + ", as was asked for)",
          "Ask for the precision that it was packed for, or use what it was packed from."};
}

std::string Checkpoint::label(std::string_view name) const {
  return is_gguf_ ? dir_ : dir_ + "/" + std::string(name);
}

Result<std::optional<std::string>> Checkpoint::side_file(std::string_view name,
                                                         size_t max_bytes) const {
  if (is_gguf_) {
    const auto found = side_files_.find(name);
    if (found != side_files_.end()) return std::optional(found->second);
    if (name == kTokenizerName && !tokenizer_problem_.ok()) return tokenizer_problem_;
    return std::optional<std::string>();
  }
  Result<std::string> text = read_file(Env::system(), label(name), max_bytes);
  if (text.ok()) return std::optional(std::move(*text));
  if (text.status().code() == Code::kNotFound) return std::optional<std::string>();
  return text.status();
}

const TensorView* Checkpoint::find(std::string_view name) const {
  for (const auto& file : files_) {
    if (const TensorView* t = file->find(name)) return t;
  }
  return nullptr;
}

Result<TensorView> Checkpoint::require(std::string_view name,
                                       std::span<const int64_t> shape) const {
  const TensorView* t = find(name);
  if (t == nullptr) {
    return Status(Code::kNotFound, dir_ + ": lacks tensor " + quote(name),
                  "Check that config.json belongs to these weights.");
  }
  if (!std::equal(shape.begin(), shape.end(), t->shape.begin(), t->shape.end())) {
    return Status(Code::kDataCorrupt,
                  dir_ + ": tensor " + quote(name) + " has shape " + shape_string(t->shape) +
                      ", expected " + shape_string(shape),
                  "Check that config.json belongs to these weights.");
  }
  return *t;
}

std::vector<std::string> Checkpoint::names() const {
  std::vector<std::string> names;
  for (const auto& file : files_) {
    for (const TensorView& t : file->tensors()) names.push_back(t.name);
  }
  std::sort(names.begin(), names.end());
  return names;
}

uint64_t Checkpoint::file_bytes() const {
  uint64_t bytes = 0;
  for (const auto& file : files_) bytes += file->file_bytes();
  return bytes;
}

void Checkpoint::release(const TensorView& t) const {
  if (t.source != nullptr) {
    for (const TensorView& part : t.source->parts()) release(part);
    return;
  }
  for (const auto& file : files_) {
    if (!file->mapped() || file->owner() != t.owner) continue;
    give_back_pages(t.bytes);
    return;
  }
}

Result<TensorView> Checkpoint::require_numbers(std::string_view name,
                                               std::span<const int64_t> shape) const {
  Result<TensorView> t = require(name, shape);
  if (!t.ok()) return t;
  CHIMERA_RETURN_IF_ERROR(check_number_dtype(*t).with_context(dir_));
  return t;
}

Result<Checkpoint::Stored> Checkpoint::stored(std::string_view name,
                                              std::span<const int64_t> shape) const {
  Result<TensorView> t = require(name, shape);
  if (!t.ok()) return t.status();
  if (is_packed_type(t->dtype) && shape.size() == 2) return Stored{std::move(*t), {}};
  if (t->dtype != DType::kF8E4M3 || shape.size() != 2) {
    CHIMERA_RETURN_IF_ERROR(check_number_dtype(*t).with_context(dir_));
    return Stored{std::move(*t), {}};
  }
  const auto scale =
      require(std::string(name) + "_scale_inv",
              std::array{block_shape_.scale_rows(shape[0]), block_shape_.scale_cols(shape[1])});
  if (!scale.ok()) return scale.status();
  Result<QuantMatrix> fp8 = fp8_matrix(*t, *scale, block_shape_);
  if (!fp8.ok()) return fp8.status().with_context(dir_);
  return Stored{std::move(*t), std::move(*fp8)};
}

Status Checkpoint::check_weights(std::string_view name, std::span<const int64_t> shape) const {
  return stored(name, shape).status();
}

Result<Matrix> Checkpoint::matrix(std::string_view name, int64_t rows, int64_t cols,
                                  Precision p) const {
  const auto found = stored(name, std::array{rows, cols});
  if (!found.ok()) return found.status();
  if (found->fp8) {
    auto wide = widen_matrix(*found->fp8, p);
    if (!wide.ok()) return wide.status().with_context(dir_ + ": tensor " + quote(name));
    release(found->tensor);
    return wide;
  }
  auto matrix = to_matrix(found->tensor, rows, cols, p);
  if (!matrix.ok()) return matrix.status().with_context(dir_);
  if (found->tensor.source != nullptr) release(found->tensor);
  return matrix;
}

Result<std::vector<float>> Checkpoint::vector(std::string_view name, int64_t n) const {
  const auto found = stored(name, std::array{n});
  if (!found.ok()) return found.status();
  auto values = to_f32(found->tensor, n);
  if (!values.ok()) return values.status().with_context(dir_);
  return values;
}

}  // namespace chimera
