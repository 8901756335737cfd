// Opening the files of a module directory safely: never outside the directory, never through a
// link, and through one descriptor - what was checked is what is read.
//
// Thread safety: a ModuleFile is a value for one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "backbone/checkpoint/safetensors.h"
#include "base/status.h"

namespace chimera {

/// A manifest lists no more.
inline constexpr size_t kMostModuleFiles = 64;

class ModuleFile {
 public:
  /// Opens `dir`/`path`, where `path` is a plain relative path (is_module_path). Every directory
  /// of `path` must be a directory and the file a regular file, none of them a symbolic link:
  /// permission_denied. not_found when absent, invalid_argument for a FIFO, device or directory.
  static Result<ModuleFile> open(const std::string& dir, std::string_view path);

  ModuleFile(ModuleFile&& other) noexcept
      : fd_(std::exchange(other.fd_, -1)), label_(std::move(other.label_)) {}
  ModuleFile& operator=(ModuleFile&&) = delete;
  ~ModuleFile();

  /// The whole text, at most `max_bytes`.
  Result<std::string> text(size_t max_bytes) const;
  /// Digest of the whole file.
  Result<std::string> sha256() const;
  Result<uint64_t> size() const;
  /// Type and permission bits (st_mode).
  Result<uint32_t> mode() const;
  /// "dir/path", for messages.
  const std::string& label() const { return label_; }
  /// A copy in private memory (reliability R21); its sha256() is over the very bytes it shows.
  Result<SafetensorsFile> safetensors() const;
  /// The bytes of one tensor of header(), read and not mapped.
  Result<std::vector<std::byte>> content(const SafetensorsFile& header,
                                         const TensorView& tensor) const;
  /// Its tensors without reading them: mapped, for names, shapes and sizes alone.
  Result<SafetensorsFile> header() const;

 private:
  ModuleFile(int fd, std::string label) : fd_(fd), label_(std::move(label)) {}
  /// A name of the open file itself, whatever happens to its path meanwhile.
  std::string descriptor_path() const { return "/proc/self/fd/" + std::to_string(fd_); }
  /// `status` with the file's own name in place of descriptor_path().
  Status relabel(const Status& status) const;

  int fd_;
  std::string label_;
};

}  // namespace chimera
