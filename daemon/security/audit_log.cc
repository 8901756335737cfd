#include "daemon/security/audit_log.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <filesystem>

#include "base/io/env.h"
#include "base/json/reader.h"
#include "base/json/writer.h"
#include "base/log/log.h"
#include "base/moment.h"

namespace chimera {
namespace {

constexpr std::string_view kCurrent = "audit.jsonl";
constexpr std::string_view kFullPrefix = "audit-", kFullSuffix = ".jsonl";

int64_t milliseconds_of(std::chrono::system_clock::time_point time) {
  return std::chrono::duration_cast<std::chrono::milliseconds>(time.time_since_epoch()).count();
}

std::string line_of(const AuditEntry& entry) {
  Json out = {{"time", format_moment(entry.time)}, {"unix_ms", milliseconds_of(entry.time)},
              {"principal", entry.principal},      {"peer", entry.peer},
              {"endpoint", entry.endpoint},        {"call", entry.call},
              {"arguments", entry.arguments},      {"result", entry.result}};
  if (!entry.message.empty()) out["message"] = entry.message;
  out["epoch_before"] = entry.epoch_before;
  out["epoch_after"] = entry.epoch_after;
  out["ms"] = entry.ms;
  return write_json(out) + "\n";
}

/// The entries of a file since then, in its order.
Status read_entries(const std::string& file, int64_t since_ms, uint64_t max_bytes,
                    std::vector<Json>* out) {
  const auto text = read_file(Env::system(), file, max_bytes);
  if (!text.ok()) return text.status();
  std::string_view rest = *text;
  while (!rest.empty()) {
    const size_t end = rest.find('\n');
    if (end == std::string_view::npos) break;
    auto entry = parse_json(rest.substr(0, end));
    rest.remove_prefix(end + 1);
    if (!entry.ok() || !entry->is_object()) continue;
    if (entry->value("unix_ms", int64_t{0}) >= since_ms) out->push_back(std::move(*entry));
  }
  return {};
}

}  // namespace

Result<std::unique_ptr<AuditLog>> AuditLog::open(Options options) {
  std::error_code error;
  std::filesystem::create_directories(options.directory, error);
  if (error) return errno_status(options.directory, error.value());
  if (::chmod(options.directory.c_str(), 0700) != 0) return errno_status(options.directory, errno);
  auto log = std::unique_ptr<AuditLog>(new AuditLog(std::move(options)));
  const MutexLock lock(log->mutex_);
  CHIMERA_RETURN_IF_ERROR(log->open_file());
  return log;
}

AuditLog::~AuditLog() = default;

std::string AuditLog::current() const { return options_.directory + "/" + std::string(kCurrent); }

std::vector<std::string> AuditLog::full_files() const {
  std::vector<std::string> files;
  std::error_code error;
  for (std::filesystem::directory_iterator it(options_.directory, error), end; !error && it != end;
       it.increment(error)) {
    const std::string name = it->path().filename().string();
    if (name.starts_with(kFullPrefix) && name.ends_with(kFullSuffix)) {
      files.push_back(it->path().string());
    }
  }
  std::sort(files.begin(), files.end());  // by the time in their names
  return files;
}

Status AuditLog::open_file() {
  const int fd =
      ::open(current().c_str(), O_WRONLY | O_APPEND | O_CREAT | O_CLOEXEC | O_NOFOLLOW, 0600);
  if (fd < 0) return errno_status(current(), errno);
  file_ = std::shared_ptr<const int>(new int(fd), [](const int* held) {
    ::close(*held);
    delete held;
  });
  struct stat info {};
  bytes_ = ::fstat(fd, &info) == 0 ? static_cast<uint64_t>(info.st_size) : 0;
  return sync_directory(Env::system(), options_.directory);
}

Status AuditLog::rotate() {
  if (::fsync(*file_) != 0) return errno_status(current(), errno);
  const std::string full = fmt::format("{}/{}{:020}{}", options_.directory, kFullPrefix,
                                       std::chrono::duration_cast<std::chrono::microseconds>(
                                           std::chrono::system_clock::now().time_since_epoch())
                                           .count(),
                                       kFullSuffix);
  if (::rename(current().c_str(), full.c_str()) != 0) return errno_status(current(), errno);
  std::vector<std::string> files = full_files();
  for (size_t i = 0; i + options_.max_files < files.size(); ++i) ::unlink(files[i].c_str());
  return open_file();
}

Status AuditLog::write_line(const std::string& line, bool durable) {
  std::shared_ptr<const int> file;
  {
    const MutexLock lock(mutex_);
    if (bytes_ + line.size() > options_.max_file_bytes && bytes_ > 0) {
      CHIMERA_RETURN_IF_ERROR(rotate());
    }
    file = file_;
    // One write: with O_APPEND lines of several daemons on one directory would not mix either.
    const ssize_t written = ::write(*file, line.data(), line.size());
    if (written < 0) return errno_status(current(), errno);
    bytes_ += static_cast<uint64_t>(written);
    if (static_cast<size_t>(written) != line.size()) {
      // Half a line would take the next one with it.
      if (::ftruncate(*file, static_cast<off_t>(bytes_ - static_cast<uint64_t>(written))) == 0) {
        bytes_ -= static_cast<uint64_t>(written);
      }
      return errno_status(current(), ENOSPC);
    }
  }
  // Outside of the mutex: those who only append do not wait for the disk.
  if (durable && ::fdatasync(*file) != 0) return errno_status(current(), errno);
  return {};
}

void AuditLog::append(const AuditEntry& entry, bool durable) {
  const Status status = write_line(line_of(entry), durable);
  bool tell = false;
  {
    const MutexLock lock(mutex_);
    tell = !status.ok() && !failing_;
    failing_ = !status.ok();
  }
  if (tell) {
    log::error("audit_not_written", {{"reason", status.message()},
                                     {"call", entry.call},
                                     {"principal", entry.principal},
                                     {"result", entry.result}});
  }
}

Result<std::vector<Json>> AuditLog::read(int64_t since, size_t limit) const {
  std::vector<Json> entries;
  std::vector<std::string> files = full_files();
  files.push_back(current());
  // From the newest file back, until there are enough.
  for (size_t i = files.size(); i > 0 && entries.size() < limit; --i) {
    std::vector<Json> of_file;
    const Status status = read_entries(files[i - 1], since * 1000,
                                       options_.max_file_bytes + (uint64_t{16} << 20), &of_file);
    if (status.code() == Code::kNotFound) continue;  // rotated away meanwhile
    CHIMERA_RETURN_IF_ERROR(status);
    of_file.insert(of_file.end(), std::make_move_iterator(entries.begin()),
                   std::make_move_iterator(entries.end()));
    entries = std::move(of_file);
  }
  if (entries.size() > limit) {
    entries.erase(entries.begin(), entries.end() - static_cast<ptrdiff_t>(limit));
  }
  return entries;
}

}  // namespace chimera
