#include "daemon/registry/state/store.h"

#include <dirent.h>
#include <fmt/format.h>
#include <sys/stat.h>

#include <algorithm>
#include <cerrno>
#include <charconv>
#include <filesystem>
#include <map>
#include <optional>

#include "base/io/file_lock.h"
#include "base/threads/mutex.h"
#include "daemon/registry/state/format.h"

namespace chimera {
namespace {

constexpr std::string_view kPrefix = "state-";
// Behind the name of a generation that a person gave up.
constexpr std::string_view kSetAside = ".corrupt";
// Kept on disk: the current generation and two to fall back on.
constexpr size_t kGenerations = 3;
// kAllHistory records of compositions that have nothing to do with one another, of a hundred
// modules with the longest paths or of a thousand with usual ones, stay below this.
constexpr size_t kMaxStateBytes = 128u << 20;

using History = std::vector<std::shared_ptr<const EpochRecord>>;

std::string file_name(uint64_t generation) { return fmt::format("{}{:020}", kPrefix, generation); }

/// What lies in a state directory.
struct Listing {
  std::vector<uint64_t> generations;   // newest first
  uint64_t set_aside = 0;              // the newest one that a person put aside; 0: none
  std::vector<std::string> leftovers;  // temp files of killed writers
};

Result<Listing> list_directory(const std::string& dir) {
  DIR* handle = opendir(dir.c_str());
  if (handle == nullptr) return errno_status(dir, errno);
  Listing found;
  while (const dirent* entry = readdir(handle)) {
    std::string_view name = entry->d_name;
    if (name.starts_with(".tmp-")) found.leftovers.push_back(dir + "/" + std::string(name));
    if (!name.starts_with(kPrefix)) continue;
    const bool aside = name.ends_with(kSetAside);
    if (aside) name.remove_suffix(kSetAside.size());
    uint64_t generation = 0;
    const char* end = name.data() + name.size();
    const auto parsed = std::from_chars(name.data() + kPrefix.size(), end, generation);
    if (parsed.ec != std::errc() || parsed.ptr != end || file_name(generation) != name) continue;
    if (aside) {
      found.set_aside = std::max(found.set_aside, generation);
    } else {
      found.generations.push_back(generation);
    }
  }
  closedir(handle);
  std::sort(found.generations.rbegin(), found.generations.rend());
  return found;
}

Status make_directory(const std::string& dir) {
  std::error_code error;
  const std::filesystem::path parent = std::filesystem::path(dir).parent_path();
  if (!parent.empty()) std::filesystem::create_directories(parent, error);
  if (error) return errno_status("state directory " + dir, error.value());
  if (mkdir(dir.c_str(), 0700) != 0 && errno != EEXIST) {
    return errno_status("state directory " + dir, errno);
  }
  struct stat info {};
  if (stat(dir.c_str(), &info) != 0) return errno_status("state directory " + dir, errno);
  if (!S_ISDIR(info.st_mode)) {
    return Status(Code::kInvalidArgument,
                  "state: found the file " + dir + " (expected a directory)");
  }
  return Status();
}

size_t count_of(const History& history, const std::string& backbone) {
  return static_cast<size_t>(std::count_if(history.begin(), history.end(), [&](const auto& r) {
    return r->composition.backbone_fingerprint == backbone;
  }));
}

/// The record of `backbone` to forget first. Restarts repeat a composition under a new epoch: such
/// repetitions go before the oldest, so that they do not push out what a rollback could still
/// return to. REQUIRES: there is one.
size_t first_to_forget(const History& history, const std::string& backbone) {
  std::optional<size_t> oldest, before;
  for (size_t i = 0; i < history.size(); ++i) {
    if (history[i]->composition.backbone_fingerprint != backbone) continue;
    if (before && history[*before]->composition == history[i]->composition) return *before;
    if (!oldest) oldest = i;
    before = i;
  }
  return *oldest;
}

/// The backbone whose newest record is the oldest of all.
std::string longest_not_run(const History& history) {
  std::map<std::string, uint64_t> newest;
  for (const auto& record : history) {
    newest[record->composition.backbone_fingerprint] = record->epoch;
  }
  return std::min_element(newest.begin(), newest.end(),
                          [](const auto& a, const auto& b) { return a.second < b.second; })
      ->first;
}

void trim(History* history) {
  const std::string backbone = history->back()->composition.backbone_fingerprint;
  const auto forget = [&](const std::string& of) {
    history->erase(history->begin() + static_cast<std::ptrdiff_t>(first_to_forget(*history, of)));
  };
  while (count_of(*history, backbone) > StateStore::kHistory) forget(backbone);
  while (history->size() > StateStore::kAllHistory) forget(longest_not_run(*history));
}

}  // namespace

struct StateStore::Impl {
  Impl(std::string d, Env& e, FileLock l) : dir(std::move(d)), env(e), lock(std::move(l)) {}

  std::string path(uint64_t generation) const { return dir + "/" + file_name(generation); }
  StateImage current() const {
    const MutexLock guard(mutex);
    return image;
  }
  Status load();
  /// Of the newest generation.
  Status unreadable(const Status& why) const;
  /// `next` follows the current image, whose generation it still has. Writers are serial.
  Status write(StateImage next);
  void drop_old_generations();

  const std::string dir;
  Env& env;
  const FileLock lock;
  std::vector<std::string> warnings;
  std::vector<uint64_t> on_disk;  // generations, newest first
  /// The history before the last append(), for retract(). Writers are serial.
  std::optional<History> before;
  StateEncoder encoder;  // likewise
  mutable Mutex mutex;
  StateImage image GUARDED_BY(mutex);
};

Status StateStore::Impl::load() {
  Result<Listing> found = list_directory(dir);
  if (!found.ok()) return found.status();
  for (const std::string& temp : found->leftovers) env.unlink(temp.c_str());
  on_disk = std::move(found->generations);
  if (on_disk.empty()) {
    if (found->set_aside == 0) return Status();
    // A new beginning that counts on: each generation was an epoch at least.
    warnings.push_back(
        fmt::format("{}{} was set aside, and there is no other: all changes are lost",
                    path(found->set_aside), kSetAside));
    const MutexLock guard(mutex);
    image.generation = image.last_epoch = found->set_aside;
    return Status();
  }
  const uint64_t generation = on_disk.front();
  const Result<std::string> bytes = read_file(env, path(generation), kMaxStateBytes);
  // A file that cannot be read now (EIO, EMFILE) may be so later.
  if (!bytes.ok() && bytes.status().code() != Code::kDataCorrupt) {
    return bytes.status().with_context("state directory");
  }
  Result<StateImage> decoded = bytes.ok() ? decode_state(*bytes) : bytes.status();
  if (decoded.ok() && decoded->generation != generation) {
    decoded = Status(Code::kDataCorrupt, "found another generation inside");
  }
  // It is the acknowledged one: to fall back to an older one would silently lose changes.
  if (!decoded.ok()) return unreadable(decoded.status());
  if (found->set_aside > generation) {
    // Later generations count on from the highest name, so that what was given up is never taken
    // for a successor. The epochs it may have handed out are skipped with it.
    decoded->last_epoch += found->set_aside - generation;
    decoded->generation = found->set_aside;
    warnings.push_back(fmt::format("{}{} was set aside: the changes of {} generations are lost",
                                   path(found->set_aside), kSetAside,
                                   found->set_aside - generation));
  }
  const MutexLock guard(mutex);
  image = std::move(*decoded);
  return Status();
}

Status StateStore::Impl::unreadable(const Status& why) const {
  const std::string name = file_name(on_disk.front());
  const std::string restore = "Restore the file " + name + " in " + dir + " from a backup. ";
  const std::string hint =
      on_disk.size() > 1
          ? fmt::format(
                "To go on from the state before it, without its last changes, rename it to "
                "{}{}",
                name, kSetAside)
          : "To start from the deployment file, move the files state-* out of there";
  return {Code::kDataCorrupt, path(on_disk.front()) + ": " + why.message(), restore + hint};
}

Status StateStore::Impl::write(StateImage next) {
  ++next.generation;
  const std::string target = path(next.generation);
  std::string text = encoder.encode(next);
  // The next start must be able to read it: old records go before a new one is lost.
  while (text.size() > kMaxStateBytes && next.history.size() > 1) {
    const auto half = static_cast<ptrdiff_t>(next.history.size() / 2);
    next.history.erase(next.history.begin(), next.history.begin() + half);
    text = encoder.encode(next);
  }
  if (text.size() > kMaxStateBytes) {
    return {Code::kResourceExhausted,
            fmt::format("state: {} bytes (expected at most {})", text.size(), kMaxStateBytes),
            "shorten the paths of modules"};
  }
  const Status written = write_file_durably(env, target, text, 0600);
  if (!written.ok()) {
    // The rename may have happened (only the directory's fsync failed): what is not
    // acknowledged must not be found by the next start.
    env.unlink(target.c_str());
    return written.with_context("state not saved");
  }
  on_disk.insert(on_disk.begin(), next.generation);
  {
    const MutexLock guard(mutex);
    image = std::move(next);
  }
  drop_old_generations();
  return Status();
}

void StateStore::Impl::drop_old_generations() {
  while (on_disk.size() > kGenerations) {
    // A file that cannot be removed costs space, not correctness; the next start lists it again.
    env.unlink(path(on_disk.back()).c_str());
    on_disk.pop_back();
  }
}

StateStore::StateStore(std::unique_ptr<Impl> impl) : impl_(std::move(impl)) {}
StateStore::~StateStore() = default;

Result<std::unique_ptr<StateStore>> StateStore::open(const std::string& dir, Env& env) {
  CHIMERA_RETURN_IF_ERROR(make_directory(dir));
  Result<FileLock> lock = FileLock::take(dir + "/lock", "state directory " + dir);
  if (!lock.ok()) return lock.status();
  auto impl = std::make_unique<Impl>(dir, env, std::move(*lock));
  CHIMERA_RETURN_IF_ERROR(impl->load());
  return std::unique_ptr<StateStore>(new StateStore(std::move(impl)));
}

std::vector<EpochRecord> StateStore::history() const {
  std::vector<EpochRecord> out;
  for (const auto& record : impl_->current().history) out.push_back(*record);
  return out;
}

std::vector<EpochRecord> StateStore::history_of(const std::string& fingerprint) const {
  std::vector<EpochRecord> own;
  for (const auto& record : impl_->current().history) {
    if (record->composition.backbone_fingerprint == fingerprint) own.push_back(*record);
  }
  return own;
}

Status StateStore::append(std::vector<EpochRecord> records) {
  StateImage next = impl_->current();
  impl_->before = next.history;
  for (EpochRecord& record : records) {
    if (record.epoch <= next.last_epoch) {
      return Status(Code::kInternal, fmt::format("epoch: found {} (expected above {})",
                                                 record.epoch, next.last_epoch));
    }
    next.last_epoch = record.epoch;
    next.history.push_back(std::make_shared<const EpochRecord>(std::move(record)));
    trim(&next.history);
  }
  return impl_->write(std::move(next));
}

Status StateStore::retract() {
  StateImage next = impl_->current();
  if (!impl_->before) return Status(Code::kInternal, "no record to take back");
  next.history = *std::exchange(impl_->before, std::nullopt);
  {
    const MutexLock guard(impl_->mutex);
    impl_->image.history = next.history;
  }
  return impl_->write(std::move(next));
}

Status StateStore::reserve(uint64_t epoch) {
  StateImage next = impl_->current();
  impl_->before.reset();  // what was appended before is not to be taken back any more
  next.last_epoch = std::max(next.last_epoch, epoch);
  return impl_->write(std::move(next));
}

uint64_t StateStore::last_epoch() const {
  const MutexLock guard(impl_->mutex);
  return impl_->image.last_epoch;
}

const std::vector<std::string>& StateStore::warnings() const { return impl_->warnings; }

}  // namespace chimera
