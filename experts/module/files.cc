#include "experts/module/files.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>

#include "base/io/digest.h"
#include "base/io/env.h"
#include "base/io/read_range.h"
#include "experts/module/manifest.h"

namespace chimera {
namespace {

Status open_error(const std::string& what, int error) {
  if (error == ELOOP || error == ENOTDIR) {
    return {Code::kPermissionDenied,
            what +
                ": found a symbolic link, or a file where a directory belongs (expected plain "
                "files inside the module directory)",
            "Copy the file into the module directory."};
  }
  if (error == ENOENT) {
    return {Code::kNotFound, what + ": found no such file (expected one)",
            "A module is a directory with module.yaml and the files it names."};
  }
  return errno_status(what, error);
}

/// Walks `path` below `dir` one part at a time, so that no link can lead outside.
Result<int> open_inside(const std::string& dir, std::string_view path) {
  int at = ::open(dir.c_str(), O_RDONLY | O_DIRECTORY | O_CLOEXEC);
  if (at < 0) return open_error(dir, errno);
  std::string walked = dir;
  for (size_t begin = 0; begin < path.size();) {
    const size_t end = std::min(path.find('/', begin), path.size());
    const std::string part(path.substr(begin, end - begin));
    walked += "/" + part;
    // Not blocking: opening a FIFO must not hang before fstat can refuse it.
    const int kind = end == path.size() ? O_NONBLOCK : O_DIRECTORY;
    const int next = ::openat(at, part.c_str(), O_RDONLY | O_NOFOLLOW | O_CLOEXEC | kind);
    const int error = errno;
    ::close(at);
    if (next < 0) return open_error(walked, error);
    at = next;
    begin = end + 1;
  }
  return at;
}

}  // namespace

Result<ModuleFile> ModuleFile::open(const std::string& dir, std::string_view path) {
  std::string label = dir + "/" + std::string(path);
  if (!is_module_path(path)) {
    return Status(Code::kPermissionDenied,
                  dir +
                      ": found a file path that is not a plain relative one (expected a path "
                      "inside the module directory)");
  }
  const Result<int> fd = open_inside(dir, path);
  if (!fd.ok()) return fd.status();
  ModuleFile file(*fd, std::move(label));
  struct stat info {};
  if (::fstat(file.fd_, &info) != 0) return errno_status(file.label_, errno);
  if (!S_ISREG(info.st_mode)) {
    return Status(Code::kInvalidArgument,
                  file.label_ + ": found a directory, FIFO or device (expected a regular file)");
  }
  return file;
}

ModuleFile::~ModuleFile() {
  if (fd_ >= 0) ::close(fd_);
}

Result<std::string> ModuleFile::text(size_t max_bytes) const {
  Result<std::string> result = read_file(Env::system(), descriptor_path(), max_bytes);
  if (!result.ok()) return relabel(result.status());
  return result;
}

Result<std::string> ModuleFile::sha256() const {
  Result<std::string> result = sha256_of_file(descriptor_path());
  if (!result.ok()) return relabel(result.status());
  return result;
}

Result<uint32_t> ModuleFile::mode() const {
  struct stat info {};
  if (::fstat(fd_, &info) != 0) return errno_status(label_, errno);
  return info.st_mode;
}

Result<uint64_t> ModuleFile::size() const {
  struct stat info {};
  if (::fstat(fd_, &info) != 0) return errno_status(label_, errno);
  return static_cast<uint64_t>(info.st_size);
}

Result<SafetensorsFile> ModuleFile::header() const {
  Result<SafetensorsFile> result = SafetensorsFile::open(descriptor_path(), Residency::kMapped);
  if (!result.ok()) return relabel(result.status());
  return result;
}

Result<SafetensorsFile> ModuleFile::safetensors() const {
  Result<SafetensorsFile> result = SafetensorsFile::open(descriptor_path(), Residency::kCopied);
  if (!result.ok()) return relabel(result.status());
  return result;
}

Result<std::vector<std::byte>> ModuleFile::content(const SafetensorsFile& header,
                                                   const TensorView& tensor) const {
  // Data begin behind the header and the eight bytes of its length, with the first tensor.
  uint64_t length = 0;
  CHIMERA_RETURN_IF_ERROR(read_range(Env::system(), fd_, label_,
                                     reinterpret_cast<std::byte*>(&length), 0, sizeof(length)));
  const std::byte* begin = tensor.bytes.data();
  for (const TensorView& other : header.tensors()) begin = std::min(begin, other.bytes.data());
  std::vector<std::byte> bytes(tensor.bytes.size());
  CHIMERA_RETURN_IF_ERROR(read_range(
      Env::system(), fd_, label_, bytes.data(),
      sizeof(length) + length + static_cast<uint64_t>(tensor.bytes.data() - begin), bytes.size()));
  return bytes;
}

Status ModuleFile::relabel(const Status& status) const {
  std::string message = status.message();
  const std::string from = descriptor_path();
  for (size_t at = message.find(from); at != std::string::npos;
       at = message.find(from, at + label_.size())) {
    message.replace(at, from.size(), label_);
  }
  return {status.code(), std::move(message), status.hint()};
}

}  // namespace chimera
