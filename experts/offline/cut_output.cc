#include "experts/offline/cut_output.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <filesystem>
#include <new>

#include "backbone/checkpoint/safetensors.h"
#include "base/io/env.h"
#include "base/json/reader.h"
#include "base/json/writer.h"

namespace chimera {
namespace {

namespace fs = std::filesystem;

// Hugging Face's own names; weights are written anew and never copied.
constexpr std::array kSideFiles{"generation_config.json",
                                "tokenizer.json",
                                "tokenizer_config.json",
                                "tokenizer.model",
                                "special_tokens_map.json",
                                "added_tokens.json",
                                "vocab.json",
                                "merges.txt",
                                "chat_template.jinja",
                                "chat_template.json"};

// Vocabularies of 250 thousand tokens take 30 MB.
constexpr size_t kMostSideFileBytes = size_t{256} << 20;

constexpr std::array kExpertCountKeys{"num_experts", "num_local_experts", "n_routed_experts"};
// ModelConfig reads these.
constexpr const char* kGroupedExpertsKey = "chimera_grouped_experts";
constexpr const char* kWholeExpertsKey = "chimera_whole_experts";

/// What the family calls its number of experts.
const char* expert_count_key(const std::string& model_type) {
  if (model_type.starts_with("deepseek_v") || model_type == "kimi_k2") return "n_routed_experts";
  const bool local =
      model_type == "mixtral" || model_type == "gpt_oss" || model_type.starts_with("llama4");
  return local ? "num_local_experts" : "num_experts";
}

Status file_error(const std::string& what, const std::error_code& error) {
  return errno_status(what, error.value());
}

/// The outermost of `dir` and its parents that does not exist; empty when `dir` does.
std::string first_missing(fs::path dir) {
  std::string missing;
  std::error_code error;
  while (!dir.empty() && !fs::exists(dir, error)) {
    missing = dir.string();
    dir = dir.parent_path();
  }
  return missing;
}

Status write_shard(const std::string& path, const std::vector<TensorView>& planned,
                   const TensorMaker& make) {
  std::vector<TensorView> tensors;
  for (const TensorView& each : planned) {
    Result<TensorView> tensor = make(each);
    if (!tensor.ok()) return tensor.status();
    tensors.push_back(std::move(*tensor));
  }
  return write_safetensors(path, tensors, {{"format", "pt"}});
}

}  // namespace

Result<std::string> new_output_path(const std::string& path) {
  std::string clean = path;
  while (clean.size() > 1 && clean.back() == '/') clean.pop_back();
  std::error_code error;
  if (fs::exists(fs::symlink_status(clean, error))) {
    return Status(Code::kAlreadyExists, clean + ": already exists (expected a new directory)",
                  "Name another directory, or remove this one.");
  }
  return clean;
}

Result<OutputDirectory> OutputDirectory::create(const std::string& path) {
  Result<std::string> fresh = new_output_path(path);
  if (!fresh.ok()) return fresh.status();
  std::string clean = std::move(*fresh);
  std::error_code error;
  const std::string partial = clean + ".partial";
  const std::string made = first_missing(fs::path(clean).parent_path());
  fs::create_directories(fs::path(clean).parent_path(), error);
  if (!fs::create_directory(partial, error)) {
    if (error) return file_error(partial, error);
    return Status(Code::kAlreadyExists, partial + ": left by an earlier run (expected nothing)",
                  "Remove it and run again.");
  }
  return OutputDirectory(std::move(clean), partial, made);
}

OutputDirectory::OutputDirectory(OutputDirectory&& other) noexcept
    : path_(std::move(other.path_)),
      partial_(std::exchange(other.partial_, {})),
      made_(std::move(other.made_)),
      committed_(other.committed_) {}

OutputDirectory::~OutputDirectory() {
  if (partial_.empty() || committed_) return;
  std::error_code ignored;
  fs::remove_all(partial_, ignored);
  if (made_.empty()) return;
  // Only what is empty goes: others may have put something there meanwhile.
  for (fs::path dir = fs::path(path_).parent_path(); fs::remove(dir, ignored) && dir != made_;)
    dir = dir.parent_path();
}

Status OutputDirectory::commit() {
  CHIMERA_RETURN_IF_ERROR(sync_directory(Env::system(), partial_));
  if (Env::system().rename(partial_.c_str(), path_.c_str()) != 0) {
    return errno_status(path_, errno);
  }
  committed_ = true;
  return sync_directory(Env::system(), parent_directory(path_));
}

void OutputDirectory::withdraw() {
  if (committed_ && Env::system().rename(path_.c_str(), partial_.c_str()) == 0) committed_ = false;
}

OutputSet::~OutputSet() {
  while (!outputs_.empty()) outputs_.pop_back();
}

Result<std::string> OutputSet::create(const std::string& path) {
  Result<OutputDirectory> output = OutputDirectory::create(path);
  if (!output.ok()) return output.status();
  outputs_.push_back(std::move(*output));
  return outputs_.back().partial();
}

Status OutputSet::commit() {
  for (OutputDirectory& output : outputs_) {
    Status status = output.commit();
    if (status.ok()) continue;
    for (OutputDirectory& earlier : outputs_) earlier.withdraw();
    return status;
  }
  return {};
}

Status write_checkpoint_tensors(const std::string& dir, const std::vector<TensorView>& tensors,
                                uint64_t shard_bytes) {
  return write_checkpoint_tensors(dir, tensors, shard_bytes,
                                  [](const TensorView& t) { return Result<TensorView>(t); });
}

Status write_checkpoint_tensors(const std::string& dir, const std::vector<TensorView>& planned,
                                uint64_t shard_bytes, const TensorMaker& make) {
  std::vector<std::vector<TensorView>> shards(1);
  uint64_t used = 0;
  uint64_t total = 0;
  for (const TensorView& tensor : planned) {
    const auto bytes = static_cast<uint64_t>(dense_bytes(tensor.dtype, tensor.shape).value_or(0));
    if (!shards.back().empty() && used + bytes > shard_bytes) {
      shards.emplace_back();
      used = 0;
    }
    shards.back().push_back(tensor);
    used += bytes;
    total += bytes;
  }
  if (shards.size() == 1) return write_shard(dir + "/model.safetensors", shards.front(), make);

  Json index = {{"metadata", {{"total_size", total}}}, {"weight_map", Json::object()}};
  Json& weight_map = *index.find("weight_map");
  for (size_t i = 0; i < shards.size(); ++i) {
    const std::string name = fmt::format("model-{:05}-of-{:05}.safetensors", i + 1, shards.size());
    CHIMERA_RETURN_IF_ERROR(write_shard(dir + "/" + name, shards[i], make));
    for (const TensorView& tensor : shards[i]) weight_map.append(tensor.name, name);
  }
  return write_file_durably(Env::system(), dir + "/model.safetensors.index.json",
                            write_json(index, {.indent = 2}) + "\n", 0644);
}

Status copy_side_files(const Checkpoint& from, const std::string& to) {
  for (const char* name : kSideFiles) {
    const Result<std::optional<std::string>> text = from.side_file(name, kMostSideFileBytes);
    if (!text.ok()) return text.status();
    if (!*text) continue;
    CHIMERA_RETURN_IF_ERROR(write_file_durably(Env::system(), to + "/" + name, **text, 0644));
  }
  return {};
}

Result<std::optional<std::string>> other_side_file(const Checkpoint& a, const Checkpoint& b) {
  for (const char* name : kSideFiles) {
    const Result<std::optional<std::string>> one = a.side_file(name, kMostSideFileBytes);
    if (!one.ok()) return one.status();
    const Result<std::optional<std::string>> other = b.side_file(name, kMostSideFileBytes);
    if (!other.ok()) return other.status();
    if (*one != *other) return std::optional<std::string>(name);
  }
  return std::optional<std::string>();
}

Status check_unchanged(const Checkpoint& checkpoint) {
  const Result<Checkpoint> now = Checkpoint::open(checkpoint.dir(), Residency::kMapped);
  if (!now.ok()) return now.status();
  bool same = now->files().size() == checkpoint.files().size() &&
              now->config_json() == checkpoint.config_json();
  for (size_t i = 0; same && i < now->files().size(); ++i) {
    const FileIdentity& was = checkpoint.files()[i]->identity();
    const FileIdentity& is = now->files()[i]->identity();
    same = was.device == is.device && was.inode == is.inode && was.size == is.size &&
           was.modified_ns == is.modified_ns;
  }
  if (same) return {};
  return {Code::kDataCorrupt,
          checkpoint.dir() +
              ": found other files than before (expected them to stay while they "
              "are read)",
          "Wait until nobody writes to it, and start again."};
}

Result<std::string> edit_config(const std::string& config_json, const std::string& label,
                                const ConfigEdit& edit) {
  Result<Json> parsed = parse_json(config_json, {.duplicates = DuplicateKeys::kLastCounts});
  if (!parsed.ok()) return parsed.status().with_context(label);
  Json& config = *parsed;
  if (!config.is_object()) {
    return Status(Code::kDataCorrupt, label + ": found no JSON object (expected config.json)");
  }
  Json* text = config.find("text_config");
  Json& target = text != nullptr && text->is_object() ? *text : config;
  bool found = false;
  for (const char* key : kExpertCountKeys) {
    if (!target.contains(key)) continue;
    target[key] = edit.num_experts;
    found = true;
  }
  if (!found) target[expert_count_key(target.value("model_type", ""))] = edit.num_experts;
  target["num_experts_per_tok"] = edit.num_experts_per_tok;
  target.erase(kWholeExpertsKey);
  if (edit.whole_experts) target[kWholeExpertsKey] = *edit.whole_experts;
  target.erase(kGroupedExpertsKey);
  if (edit.grouped_experts) target[kGroupedExpertsKey] = *edit.grouped_experts;
  return write_json(config, {.indent = 2}) + "\n";
}

}  // namespace chimera
