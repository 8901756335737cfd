#include "daemon/security/audit_log.h"

#include <fcntl.h>
#include <fmt/chrono.h>
#include <fmt/format.h>
#include <pthread.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <ctime>
#include <filesystem>
#include <utility>

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
  {
    const MutexLock lock(log->mutex_);
    CHIMERA_RETURN_IF_ERROR(log->open_file());
  }
  log->thread_ = std::thread([raw = log.get()] { raw->run(); });
  return log;
}

AuditLog::~AuditLog() {
  {
    const MutexLock lock(mutex_);
    stopping_ = true;
  }
  wake_.notify_all();
  if (thread_.joinable()) thread_.join();
}

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

Result<AuditLog::File> AuditLog::write_line(const std::string& line) {
  const MutexLock lock(mutex_);
  if (bytes_ + line.size() > options_.max_file_bytes && bytes_ > 0) {
    CHIMERA_RETURN_IF_ERROR(rotate());
  }
  // One write: with O_APPEND lines of several daemons on one directory would not mix either.
  const ssize_t written = ::write(*file_, line.data(), line.size());
  if (written < 0) return errno_status(current(), errno);
  bytes_ += static_cast<uint64_t>(written);
  if (static_cast<size_t>(written) == line.size()) return file_;
  // Half a line would take the next one with it.
  if (::ftruncate(*file_, static_cast<off_t>(bytes_ - static_cast<uint64_t>(written))) == 0) {
    bytes_ -= static_cast<uint64_t>(written);
  }
  return errno_status(current(), ENOSPC);
}

void AuditLog::note(const Status& status, const AuditEntry* entry) {
  {
    const MutexLock lock(mutex_);
    const bool told = std::exchange(failing_, !status.ok());
    if (status.ok() || told) return;
  }
  if (entry == nullptr) return log::error("audit_not_written", {{"reason", status.message()}});
  log::error("audit_not_written", {{"reason", status.message()},
                                   {"call", entry->call},
                                   {"principal", entry->principal},
                                   {"result", entry->result}});
}

void AuditLog::append(const AuditEntry& entry) {
  note(write_line(line_of(entry)).status(), &entry);
}

void AuditLog::append(const AuditEntry& entry, std::function<void()> then) {
  Result<File> file = write_line(line_of(entry));
  note(file.status(), &entry);
  if (!file.ok()) return then();
  {
    const MutexLock lock(mutex_);
    waiting_.push_back({std::move(*file), std::move(then)});
  }
  wake_.notify_all();
}

void AuditLog::run() {
  pthread_setname_np(pthread_self(), "chimera-audit");
  for (;;) {
    std::vector<Waiting> batch;
    {
      const MutexLock lock(mutex_);
      wake_.wait(mutex_, [this]() REQUIRES(mutex_) { return stopping_ || !waiting_.empty(); });
      if (waiting_.empty()) return;
      batch.swap(waiting_);
    }
    // Outside of the mutex: those who append do not wait for the disk.
    if (const Status status = sync(batch); !status.ok()) note(status, nullptr);
    for (const Waiting& one : batch) one.then();
  }
}

Status AuditLog::sync(const std::vector<Waiting>& batch) {
  const int* synced = nullptr;
  Status first;
  for (const Waiting& one : batch) {
    if (one.file.get() == synced) continue;
    synced = one.file.get();
    ++syncs_;
    // The others of the batch are in another file: they are not lost with this one.
    if (::fdatasync(*synced) != 0 && first.ok()) first = errno_status(current(), errno);
  }
  return first;
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
