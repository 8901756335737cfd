#include "experts/library/quarantine.h"

#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <span>
#include <vector>

#include "base/io/digest.h"
#include "base/json/reader.h"
#include "base/json/writer.h"

namespace chimera {
namespace {

constexpr size_t kMaxRecord = 64u << 10;
constexpr size_t kPiece = 1u << 20;  // of a library, read at a time

/// The sentence of a record, or of the lack of a readable one. A library in this process ends all
/// of it, and once is enough.
std::string describe(const std::string& text) {
  const Result<Json> record = parse_json(text);
  const auto field = [&](const char* key) { return record.ok() ? record->value(key, "?") : "?"; };
  const bool ours = field("ended") == "daemon";
  return fmt::format("version {} {} ({}{}: it {})", field("version"),
                     ours ? "ended the daemon" : "crashed too often", ours ? "at " : "last at ",
                     field("time"), field("reason"));
}

}  // namespace

Quarantine::Quarantine(std::string state_dir, Env& env)
    : dir_(state_dir.empty() ? "" : std::move(state_dir) + "/quarantine"), env_(env) {}

Result<std::string> library_key(const LibrarySource& source) {
  Sha256 digest;
  digest.update_field("chimera-library/1");
  digest.update_field(source.spec.id);
  digest.update_field(source.spec.config);
  std::vector<std::byte> piece(kPiece);
  for (uint64_t at = 0; at < source.image->size();) {
    const ssize_t n =
        ::pread(source.image->fd(), piece.data(), piece.size(), static_cast<off_t>(at));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return errno_status("library of module " + source.module, n < 0 ? errno : EIO);
    digest.update(std::span(piece).first(static_cast<size_t>(n)));
    at += static_cast<uint64_t>(n);
  }
  return digest.finish();
}

std::string quarantine_path(const std::string& state_dir, const std::string& key) {
  return state_dir + "/quarantine/" + key.substr(key.find(':') + 1) + ".json";
}

std::string Quarantine::path_of(const std::string& key) const {
  return quarantine_path(parent_directory(dir_), key);
}

Status Quarantine::check(const std::string& key, const std::string& module) const {
  std::string why;
  {
    const MutexLock guard(mutex_);
    if (here_.contains(key)) why = "it crashed too often since the daemon started";
  }
  std::string hint = "Load a corrected version.";
  if (!dir_.empty()) {
    const Result<std::string> text = read_file(env_, path_of(key), kMaxRecord);
    if (text.ok()) {
      why = describe(*text);
    } else if (text.status().code() != Code::kNotFound) {
      why = "its record cannot be read: " + text.status().message();
    }
    hint += fmt::format(" To try this one again, remove quarantine/{} from the state directory.",
                        path_of(key).substr(dir_.size() + 1));
  }
  if (why.empty()) return {};
  return {Code::kFailedPrecondition,
          fmt::format("module {}: its library is in quarantine: {}", module, why), hint};
}

Status Quarantine::put(const std::string& key, const QuarantineRecord& record) {
  const Json j = {{"module", record.module},   {"version", record.version},
                  {"library", record.library}, {"crashes", record.crashes},
                  {"reason", record.reason},   {"time", record.time}};
  const std::string text = write_json(j, {.indent = 2});
  Status status;
  if (!dir_.empty()) {
    if (::mkdir(dir_.c_str(), 0700) != 0 && errno != EEXIST) {
      status = errno_status(dir_ + ": mkdir", errno);
    } else {
      status = write_file_durably(env_, path_of(key), text + "\n", 0600);
    }
  }
  const MutexLock guard(mutex_);
  if (dir_.empty() || !status.ok()) here_.insert(key);
  return status;
}

}  // namespace chimera
