#include "experts/offline/assembly/shard_file.h"

#include <fcntl.h>

#include <cerrno>
#include <utility>

namespace chimera {
namespace {

// What unfinished files end with.
constexpr const char* kUnfinished = ".part";
constexpr uint64_t kLengthBytes = 8;  // of the header's length, in front of it

}  // namespace

Result<ShardFile> ShardFile::create(Env& env, const std::string& path, uint64_t header_bytes) {
  const std::string part = path + kUnfinished;
  const int fd = env.open(part.c_str(), O_RDWR | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
  if (fd < 0) return errno_status(part, errno);
  return ShardFile(env, path, fd, header_bytes);
}

ShardFile::ShardFile(ShardFile&& other) noexcept
    : env_(other.env_),
      path_(std::move(other.path_)),
      fd_(std::exchange(other.fd_, -1)),
      header_bytes_(other.header_bytes_) {}

ShardFile::~ShardFile() {
  if (fd_ < 0) return;
  env_->close(fd_);
  env_->unlink((path_ + kUnfinished).c_str());
}

Status ShardFile::put(uint64_t offset, std::span<const std::byte> bytes) {
  while (!bytes.empty()) {
    const ssize_t n = env_->pwrite(fd_, bytes.data(), bytes.size(), static_cast<off_t>(offset));
    if (n < 0 && errno == EINTR) continue;
    if (n <= 0) return errno_status(path_, n < 0 ? errno : ENOSPC);
    bytes = bytes.subspan(static_cast<size_t>(n));
    offset += static_cast<uint64_t>(n);
  }
  return {};
}

Status ShardFile::write(uint64_t offset, std::span<const std::byte> bytes) {
  return put(kLengthBytes + header_bytes_ + offset, bytes);
}

Status ShardFile::finish(const std::string& header) {
  std::string text(kLengthBytes, '\0');
  for (size_t i = 0; i < kLengthBytes; ++i) {
    text[i] = static_cast<char>(header_bytes_ >> (8 * i) & 0xff);
  }
  text += header;
  text.append(header_bytes_ - header.size(), ' ');
  CHIMERA_RETURN_IF_ERROR(put(0, std::as_bytes(std::span(text))));
  if (env_->fsync(fd_) != 0) return errno_status(path_, errno);
  const int closed = env_->close(std::exchange(fd_, -1));
  const std::string part = path_ + kUnfinished;
  if (closed != 0 || env_->rename(part.c_str(), path_.c_str()) != 0) {
    Status status = errno_status(path_, errno);
    env_->unlink(part.c_str());
    return status;
  }
  return sync_directory(*env_, parent_directory(path_));
}

}  // namespace chimera
