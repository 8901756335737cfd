#include "experts/offline/assembly/partial_output.h"

#include <cerrno>
#include <filesystem>
#include <utility>

#include "experts/offline/cut_output.h"

namespace chimera {
namespace {

namespace fs = std::filesystem;

constexpr const char* kKeyFile = ".assembly-key";
constexpr size_t kMaxKeyBytes = 256;
constexpr const char* kFinished = ".safetensors";

/// Files of a run that was killed: only finished shards are worth keeping.
void remove_unfinished(const std::string& dir) {
  std::error_code error;
  for (const auto& file : fs::directory_iterator(dir, error)) {
    const fs::path& path = file.path();
    if (path.filename() == kKeyFile || path.extension() == kFinished) continue;
    fs::remove_all(path, error);
  }
}

/// A run that was killed before it left its key, or anything else.
bool holds_nothing(const std::string& dir) {
  std::error_code error;
  for (const auto& file : fs::directory_iterator(dir, error)) {
    if (!file.path().filename().string().starts_with(".tmp-")) return false;
  }
  return !error;
}

}  // namespace

Result<PartialOutput> PartialOutput::open(Env& env, const std::string& path,
                                          const std::string& key) {
  Result<std::string> fresh = new_output_path(path);
  if (!fresh.ok()) return fresh.status();
  std::string clean = std::move(*fresh);
  std::error_code error;
  const std::string dir = clean + ".partial";
  const std::string key_path = dir + "/" + kKeyFile;
  if (fs::is_directory(dir, error) && !holds_nothing(dir)) {
    const Result<std::string> found = read_file(env, key_path, kMaxKeyBytes);
    if (!found.ok() || *found != key) {
      return Status(Code::kAlreadyExists,
                    dir +
                        ": left by a run of other parents or another recipe (expected the same, "
                        "to go on with it)",
                    "Remove it and run again.");
    }
    remove_unfinished(dir);
    return PartialOutput(env, std::move(clean), dir, "");
  }
  fs::path made = dir;  // the outermost directory that has to be made
  while (made.has_parent_path() && !fs::exists(made.parent_path(), error))
    made = made.parent_path();
  fs::create_directories(dir, error);
  remove_unfinished(dir);
  if (error) return errno_status(dir, error.value());
  PartialOutput out(env, std::move(clean), dir, made.string());
  CHIMERA_RETURN_IF_ERROR(write_file_durably(env, key_path, key, 0644));
  return out;
}

PartialOutput::PartialOutput(PartialOutput&& other) noexcept
    : env_(other.env_),
      path_(std::move(other.path_)),
      dir_(std::exchange(other.dir_, {})),
      made_(std::move(other.made_)) {}

PartialOutput::~PartialOutput() {
  std::error_code ignored;
  if (dir_.empty()) return;
  fs::remove_all(dir_, ignored);
  // Only what is empty goes: others may have put something there meanwhile.
  for (fs::path at = dir_; !made_.empty() && at != made_;) {
    at = at.parent_path();
    if (!fs::remove(at, ignored)) return;
  }
}

Status PartialOutput::commit() {
  CHIMERA_RETURN_IF_ERROR(sync_directory(*env_, dir_));
  if (env_->rename(dir_.c_str(), path_.c_str()) != 0) return errno_status(path_, errno);
  dir_.clear();
  // Last: a run that is killed before has either what it can go on with or the complete output.
  const std::string key_path = path_ + "/" + kKeyFile;
  if (env_->unlink(key_path.c_str()) != 0) return errno_status(key_path, errno);
  CHIMERA_RETURN_IF_ERROR(sync_directory(*env_, path_));
  return sync_directory(*env_, parent_directory(path_));
}

}  // namespace chimera
