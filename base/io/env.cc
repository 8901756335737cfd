#include "base/io/env.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <system_error>

#include "base/io/foreign_file.h"

namespace chimera {
namespace {

// Names tried for a temp file before giving up: one per writer that runs at this moment, plus
// what crashed processes of the same pid left behind.
constexpr int kTempNames = 1000;

/// Repeats `call` while a signal interrupts it.
template <class Call>
auto retry(Call call) {
  auto result = call();
  while (result < 0 && errno == EINTR) result = call();
  return result;
}

std::string_view kind_of(mode_t mode) {
  if (S_ISDIR(mode)) return "a directory";
  if (S_ISFIFO(mode)) return "a FIFO";
  if (S_ISSOCK(mode)) return "a socket";
  if (S_ISCHR(mode) || S_ISBLK(mode)) return "a device";
  return "not a regular file";
}

}  // namespace

int Env::open(const char* path, int flags, mode_t mode) { return ::open(path, flags, mode); }
ssize_t Env::read(int fd, void* buffer, size_t n) { return ::read(fd, buffer, n); }
ssize_t Env::pread(int fd, void* buffer, size_t n, off_t offset) {
  return ::pread(fd, buffer, n, offset);
}
ssize_t Env::write(int fd, const void* buffer, size_t n) { return ::write(fd, buffer, n); }
ssize_t Env::pwrite(int fd, const void* buffer, size_t n, off_t offset) {
  return ::pwrite(fd, buffer, n, offset);
}
int Env::fsync(int fd) { return ::fsync(fd); }
int Env::close(int fd) { return ::close(fd); }
int Env::rename(const char* from, const char* to) { return ::rename(from, to); }
int Env::unlink(const char* path) { return ::unlink(path); }

Env& Env::system() {
  static Env env;
  return env;
}

Result<ScopedFd> ScopedFd::open_regular(Env& env, const std::string& path) {
  if (path.find('\0') != std::string::npos) {
    return Status(Code::kInvalidArgument, "file name holds a NUL byte");
  }
  // O_NONBLOCK: opening a FIFO that nobody writes to must not hang.
  const int flags = O_RDONLY | O_CLOEXEC | O_NONBLOCK | O_NOCTTY;
  const int fd = retry([&] { return env.open(path.c_str(), flags, 0); });
  if (fd < 0) return errno_status(path, errno);
  ScopedFd file(env, fd, 0);
  struct stat info {};
  if (::fstat(fd, &info) != 0) return errno_status(path + ": fstat", errno);
  if (!S_ISREG(info.st_mode)) {
    return Status(Code::kInvalidArgument, path + ": is " + std::string(kind_of(info.st_mode)) +
                                              ", expected a regular file");
  }
  file.size_ = static_cast<uint64_t>(info.st_size);
  return file;
}

ScopedFd::~ScopedFd() {
  // Nothing was written through it, so a failing close loses nothing.
  if (fd_ >= 0) env_->close(fd_);
}

Result<DurableFile> DurableFile::create(Env& env, const std::string& path, mode_t mode) {
  const std::string stem = parent_directory(path) + "/.tmp-" + std::to_string(::getpid()) + "-";
  const int flags = O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC | O_NOFOLLOW;
  for (int n = 0; n < kTempNames; ++n) {
    const std::string temp = stem + std::to_string(n);
    const int fd = retry([&] { return env.open(temp.c_str(), flags, mode); });
    if (fd >= 0) return DurableFile(env, path, temp, fd);
    if (errno != EEXIST) return errno_status(path + ": create temporary file", errno);
  }
  return Status(Code::kResourceExhausted, path + ": no free temporary name beside it",
                "Remove the old .tmp-* files in " + parent_directory(path) + ".");
}

DurableFile::DurableFile(DurableFile&& other) noexcept
    : env_(other.env_),
      path_(std::move(other.path_)),
      temp_(std::exchange(other.temp_, {})),
      fd_(std::exchange(other.fd_, -1)) {}

DurableFile::~DurableFile() {
  if (fd_ >= 0) env_->close(fd_);
  if (!temp_.empty()) env_->unlink(temp_.c_str());
}

Status DurableFile::append(std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = retry([&] { return env_->write(fd_, bytes.data(), bytes.size()); });
    if (n < 0) return errno_status(path_ + ": write", errno);
    if (n == 0) return Status(Code::kUnavailable, path_ + ": write made no progress");
    bytes = bytes.subspan(static_cast<size_t>(n));
  }
  return Status();
}

Status DurableFile::commit() {
  if (retry([&] { return env_->fsync(fd_); }) != 0) return errno_status(path_ + ": fsync", errno);
  // After EINTR the descriptor is closed on Linux, and the data is already synced.
  const int closed = env_->close(std::exchange(fd_, -1));
  if (closed != 0 && errno != EINTR) return errno_status(path_ + ": close", errno);
  if (retry([&] { return env_->rename(temp_.c_str(), path_.c_str()); }) != 0) {
    return errno_status(path_ + ": rename into place", errno);
  }
  temp_.clear();
  return sync_directory(*env_, parent_directory(path_));
}

Result<std::string> read_file(Env& env, const std::string& path, size_t max_bytes) {
  auto file = ScopedFd::open_regular(env, path);
  if (!file.ok()) return file.status();
  const auto too_large = [&](const std::string& found) {
    return Status(
        Code::kInvalidArgument,
        path + ": is " + found + " bytes long, expected at most " + std::to_string(max_bytes));
  };
  if (file->size() > max_bytes) return too_large(std::to_string(file->size()));
  std::string contents(static_cast<size_t>(file->size()), '\0');
  size_t filled = 0;
  while (true) {
    if (filled == contents.size()) contents.resize(filled + 4096);  // it may be growing
    const ssize_t n =
        retry([&] { return env.read(file->fd(), &contents[filled], contents.size() - filled); });
    if (n < 0) return errno_status(path + ": read", errno);
    if (n == 0) break;
    filled += static_cast<size_t>(n);
    if (filled > max_bytes) return too_large("more than " + std::to_string(max_bytes));
  }
  contents.resize(filled);
  CHIMERA_RETURN_IF_ERROR(refuse_pointer_file(contents, path));
  return contents;
}

Status write_file_durably(Env& env, const std::string& path, std::string_view contents,
                          mode_t mode) {
  auto file = DurableFile::create(env, path, mode);
  if (!file.ok()) return file.status();
  CHIMERA_RETURN_IF_ERROR(file->append(std::as_bytes(std::span(contents))));
  return file->commit();
}

Status sync_directory(Env& env, const std::string& dir) {
  const int fd =
      retry([&] { return env.open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC, 0); });
  if (fd < 0) return errno_status(dir + ": open to sync", errno);
  const ScopedFd owner(env, fd, 0);
  if (retry([&] { return env.fsync(fd); }) != 0) return errno_status(dir + ": fsync", errno);
  return Status();
}

std::string parent_directory(const std::string& path) {
  const size_t slash = path.rfind('/');
  if (slash == std::string::npos) return ".";
  return slash == 0 ? "/" : path.substr(0, slash);
}

Status errno_status(std::string_view what, int error) {
  const std::string text = std::string(what) + ": " + std::generic_category().message(error);
  switch (error) {
    case ENOENT:
    case ENOTDIR:
      return Status(Code::kNotFound, text, "Check the path.");
    case EACCES:
    case EPERM:
    case EROFS:
      return Status(Code::kPermissionDenied, text,
                    "Check owner and mode of the file and of the directories above it.");
    case EEXIST:
    case ENOTEMPTY:
      return Status(Code::kAlreadyExists, text);
    case ENOSPC:
    case EDQUOT:
      return Status(Code::kResourceExhausted, text, "Free space on that file system and retry.");
    case EMFILE:
    case ENFILE:
      return Status(Code::kResourceExhausted, text, "Raise the limit of open files (ulimit -n).");
    case ENOMEM:
      return Status(Code::kResourceExhausted, text, "Free memory and retry.");
    case EISDIR:
    case ENAMETOOLONG:
    case ELOOP:
    case EINVAL:
    case ENXIO:
      return Status(Code::kInvalidArgument, text, "Check the path.");
    case EIO:
      return Status(Code::kUnavailable, text, "Check the storage device (kernel log).");
    case EINTR:
    case EAGAIN:
    case EBUSY:
    case ETIMEDOUT:
      return Status(Code::kUnavailable, text, "Try again.");
    default:
      return Status(Code::kInternal, text);
  }
}

}  // namespace chimera
