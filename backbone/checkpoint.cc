#include "backbone/checkpoint.h"

#include <sys/stat.h>

#include <algorithm>
#include <array>
#include <set>

#include "backbone/checkpoint_index.h"
#include "backbone/safetensors_header.h"

namespace chimera {
namespace {

using Files = std::vector<std::shared_ptr<const SafetensorsFile>>;

constexpr size_t kMaxConfigBytes = 1u << 20;
// As many names as one shard's header may hold.
constexpr size_t kMaxIndexBytes = SafetensorsFile::kMaxHeaderBytes;
constexpr const char* kSingleName = "model.safetensors";
constexpr const char* kIndexName = "model.safetensors.index.json";

bool exists(const std::string& path) {
  struct stat info {};
  return ::stat(path.c_str(), &info) == 0;
}

Result<std::shared_ptr<const SafetensorsFile>> open_file(const std::string& path,
                                                         Residency residency, Env& env) {
  auto file = SafetensorsFile::open(path, residency, env);
  if (!file.ok()) return file.status();
  return std::shared_ptr<const SafetensorsFile>(
      std::make_shared<SafetensorsFile>(std::move(*file)));
}

/// Every tensor of `file` must be in the index, and there under this file's name.
Status check_shard(const SafetensorsFile& file, const std::string& shard, const ShardMap& index) {
  constexpr const char* kHint = "Download the checkpoint again; its files do not belong together.";
  for (const TensorView& t : file.tensors()) {
    const auto at = index.find(t.name);
    if (at == index.end()) {
      return Status(
          Code::kDataCorrupt,
          file.path() + ": holds tensor " + quote_bytes(t.name) + ", which the index does not list",
          kHint);
    }
    if (at->second != shard) {
      return Status(Code::kDataCorrupt,
                    file.path() + ": holds tensor " + quote_bytes(t.name) +
                        ", which the index says is in " + quote_bytes(at->second),
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
        return Status(Code::kDataCorrupt,
                      (*file)->path() + ": lacks tensor " + quote_bytes(tensor) +
                          ", which the index says is there",
                      "Download the checkpoint again; its files do not belong together.");
      }
    }
    files.push_back(std::move(*file));
  }
  return files;
}

Result<Files> open_files(const std::string& dir, Residency residency, Env& env) {
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

Result<Checkpoint> Checkpoint::open(const std::string& dir, Residency residency, Env& env) {
  Checkpoint checkpoint;
  checkpoint.dir_ = dir;
  auto config = read_file(env, dir + "/config.json", kMaxConfigBytes);
  if (!config.ok()) return config.status();
  checkpoint.config_json_ = std::move(*config);
  checkpoint.has_tokenizer_ = exists(dir + "/tokenizer.json");
  auto files = open_files(dir, residency, env);
  if (!files.ok()) return files.status();
  checkpoint.files_ = std::move(*files);
  return checkpoint;
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
    return Status(Code::kNotFound, dir_ + ": lacks tensor " + quote_bytes(name),
                  "Check that config.json belongs to these weights.");
  }
  if (!std::equal(shape.begin(), shape.end(), t->shape.begin(), t->shape.end())) {
    return Status(Code::kDataCorrupt,
                  dir_ + ": tensor " + quote_bytes(name) + " has shape " + shape_string(t->shape) +
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

Result<Matrix> Checkpoint::matrix(std::string_view name, int64_t rows, int64_t cols,
                                  Precision p) const {
  const auto t = require(name, std::array{rows, cols});
  if (!t.ok()) return t.status();
  auto matrix = to_matrix(*t, rows, cols, p);
  if (!matrix.ok()) return matrix.status().with_context(dir_);
  return matrix;
}

Result<std::vector<float>> Checkpoint::vector(std::string_view name, int64_t n) const {
  const auto t = require(name, std::array{n});
  if (!t.ok()) return t.status();
  auto values = to_f32(*t, n);
  if (!values.ok()) return values.status().with_context(dir_);
  return values;
}

}  // namespace chimera
