#include "backbone/gguf/gguf_model.h"

#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <set>

#include "backbone/families/model_config.h"
#include "backbone/gguf/config.h"
#include "backbone/gguf/fields.h"
#include "backbone/gguf/gguf_file.h"
#include "backbone/gguf/names.h"
#include "backbone/gguf/vocabulary.h"
#include "base/quote.h"

namespace chimera {
namespace {

constexpr int64_t kMostParts = 4096;
constexpr std::string_view kSuffix = ".gguf";

std::string part_ending(int64_t number, int64_t count) {
  return fmt::format("-{:05}-of-{:05}{}", number, count, kSuffix);
}

/// Size of all parts, bytes; a missing one is reported when it is opened.
uint64_t total_bytes(const std::vector<std::string>& paths) {
  uint64_t bytes = 0;
  for (const std::string& path : paths) {
    struct stat info {};
    if (::stat(path.c_str(), &info) == 0) bytes += static_cast<uint64_t>(info.st_size);
  }
  return bytes;
}

/// Paths of all parts, from the name of the first.
Result<std::vector<std::string>> part_paths(const std::string& path, const GgufFile& first) {
  GgufFields fields(first.metadata(), path);
  const int64_t count = fields.integer("split.count").value_or(1);
  const int64_t number = fields.integer("split.no").value_or(0);
  CHIMERA_RETURN_IF_ERROR(fields.status());
  if (count <= 1) return std::vector<std::string>{path};
  if (count > kMostParts)
    return Status(Code::kDataCorrupt, fmt::format("{}: split.count is {} (expected at most {})",
                                                  path, count, kMostParts));
  const std::string ending = part_ending(1, count);
  if (number != 0 || !path.ends_with(ending))
    return Status(Code::kInvalidArgument,
                  fmt::format("{}: is part {} of {} (expected the first, NAME{})", path, number + 1,
                              count, ending),
                  "Name the first part, with its original name.");
  const std::string stem = path.substr(0, path.size() - ending.size());
  std::vector<std::string> paths;
  for (int64_t i = 1; i <= count; ++i) paths.push_back(stem + part_ending(i, count));
  return paths;
}

Status check_part(const GgufFile& file, int64_t number, size_t count) {
  GgufFields fields(file.metadata(), file.path());
  const std::optional<int64_t> no = fields.integer("split.no");
  const std::optional<int64_t> of = fields.integer("split.count");
  CHIMERA_RETURN_IF_ERROR(fields.status());
  if (no == number && of == static_cast<int64_t>(count)) return {};
  return {Code::kDataCorrupt,
          fmt::format("{}: split.no and split.count say part {} of {} (expected {} of {})",
                      file.path(), no.value_or(0) + 1, of.value_or(1), number + 1, count),
          "Download the model again; its files do not belong together."};
}

/// No tensor in two parts, and as many as the first says.
Status check_together(const std::vector<GgufFile>& parts) {
  std::set<std::string_view> names;
  size_t count = 0;
  for (const GgufFile& part : parts) {
    count += part.tensors().size();
    for (const TensorView& t : part.tensors()) {
      if (!names.insert(t.name).second)
        return {Code::kDataCorrupt,
                part.path() + ": tensor " + quote(t.name) + " is in another part as well"};
    }
  }
  GgufFields fields(parts.front().metadata(), parts.front().path());
  const std::optional<int64_t> stated = fields.integer("split.tensors.count");
  CHIMERA_RETURN_IF_ERROR(fields.status());
  if (!stated || *stated == static_cast<int64_t>(count)) return {};
  return {Code::kDataCorrupt,
          fmt::format("{}: split.tensors.count is {}, the parts hold {}", parts.front().path(),
                      *stated, count),
          "Download the model again; its files do not belong together."};
}

Result<std::vector<GgufFile>> open_parts(const std::string& path, Residency residency, Env& env) {
  // The first is mapped to learn of the others: what to do with all of them depends on their size.
  Result<GgufFile> first = GgufFile::open(path, Residency::kMapped, env);
  if (!first.ok()) return first.status();
  const auto paths = part_paths(path, *first);
  if (!paths.ok()) return paths.status();
  if (residency == Residency::kAutomatic)
    residency = total_bytes(*paths) <= kCopyAtMost ? Residency::kCopied : Residency::kMapped;
  std::vector<GgufFile> parts;
  for (size_t i = 0; i < paths->size(); ++i) {
    Result<GgufFile> part = GgufFile::open((*paths)[i], residency, env);
    if (!part.ok()) return part.status();
    if (paths->size() > 1)
      CHIMERA_RETURN_IF_ERROR(check_part(*part, static_cast<int64_t>(i), paths->size()));
    parts.push_back(std::move(*part));
  }
  CHIMERA_RETURN_IF_ERROR(check_together(parts));
  return parts;
}

/// Two names of a file may mean the same tensor.
Status check_unique(const std::vector<TensorView>& tensors, const std::string& path) {
  std::set<std::string_view> names;
  for (const TensorView& t : tensors) {
    if (!names.insert(t.name).second)
      return {Code::kDataCorrupt, path + ": holds two tensors for " + quote(t.name)};
  }
  return {};
}

}  // namespace

Result<GgufModel> open_gguf_model(const std::string& path, Residency residency, Env& env) {
  Result<std::vector<GgufFile>> parts = open_parts(path, residency, env);
  if (!parts.ok()) return parts.status();
  const GgufMetadata& metadata = parts->front().metadata();
  const GgufFind find = [&](std::string_view name) -> const TensorView* {
    for (const GgufFile& part : *parts) {
      if (const TensorView* t = part.find(name)) return t;
    }
    return nullptr;
  };
  Result<GgufConfig> config = gguf_config(metadata, find, path);
  if (!config.ok()) return config.status();
  const Result<ModelConfig> parsed = parse_model_config(config->config_json, path);
  if (!parsed.ok()) return parsed.status();

  // One list for all parts: what was cut into pieces may lie in several.
  std::vector<TensorView> all;
  for (const GgufFile& part : *parts)
    all.insert(all.end(), part.tensors().begin(), part.tensors().end());
  Result<std::vector<TensorView>> named =
      huggingface_tensors(all, *parsed, config->permuted_qk, path);
  if (!named.ok()) return named.status();

  CHIMERA_RETURN_IF_ERROR(check_unique(*named, path));

  GgufModel model;
  model.config_json = std::move(config->config_json);
  model.tokenizer_problem = gguf_vocabulary(metadata, path, model.side_files);
  for (const GgufFile& part : *parts) {
    // What was put in another order has memory of its own; it counts for the first part.
    std::vector<TensorView> own;
    for (TensorView& t : *named) {
      const bool elsewhere = std::any_of(parts->begin(), parts->end(), [&](const GgufFile& other) {
        return other.owner() == t.owner && &other != &part;
      });
      if (t.owner == part.owner() || (&part == &parts->front() && !elsewhere)) own.push_back(t);
    }
    model.files.push_back(std::make_shared<TensorFile>(part.path(), std::move(own),
                                                       part.file_bytes(), part.mapped(),
                                                       part.identity(), part.owner()));
  }
  return model;
}

}  // namespace chimera
