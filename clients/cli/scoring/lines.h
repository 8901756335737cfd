// Lines of a file, plain or compressed with zstd.
//
// Thread safety: none; by the thread of its source.
#pragma once

#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <variant>

#include "commands.h"

namespace chimera::cli {

struct FileCloser {
  void operator()(std::FILE* file) const { std::fclose(file); }
};
using File = std::unique_ptr<std::FILE, FileCloser>;

/// Longest line that is accepted, bytes.
inline constexpr size_t kMaxLineBytes = size_t{64} << 20;

/// Bytes of a source, piece by piece. Not thread-safe.
class ByteSource {
 public:
  virtual ~ByteSource() = default;
  /// Appends the next piece to `out`; false at the end.
  virtual std::variant<bool, Error> read(std::string& out) = 0;
};
/// `label` names the file in errors.
std::unique_ptr<ByteSource> plain_bytes(File file, std::string label);
/// The content of a zstd file of any number of frames; what is none, or ends early, is an error.
std::unique_ptr<ByteSource> zstd_bytes(File file, std::string label);

/// Holds at most one line of kMaxLineBytes and one piece of its source. Not thread-safe.
class Lines {
 public:
  Lines(std::unique_ptr<ByteSource> bytes, std::string label)
      : bytes_(std::move(bytes)), label_(std::move(label)) {}
  /// The next line without its end, valid until the next call; nullopt after the last.
  std::variant<std::optional<std::string_view>, Error> next();
  /// Number of the line that next() gave, from 1.
  uint64_t number() const { return number_; }

 private:
  const std::unique_ptr<ByteSource> bytes_;
  const std::string label_;
  std::string buffer_;
  size_t at_ = 0;  // of the next line in buffer_
  uint64_t number_ = 0;
  bool ended_ = false;
};

}  // namespace chimera::cli
