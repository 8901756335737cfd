// Reading little-endian numbers and texts from untrusted bytes. Internal to the reader of GGUF.
//
// Thread safety: one thread.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <span>
#include <string_view>

namespace chimera {

/// After the first read beyond the end all reads give zero and good() is false.
class GgufCursor {
 public:
  explicit GgufCursor(std::span<const std::byte> bytes) : bytes_(bytes) {}

  bool good() const { return good_; }
  uint64_t position() const { return at_; }
  uint64_t left() const { return bytes_.size() - at_; }

  template <class T>
  T number() {
    T value{};
    if (!take(sizeof(T))) return value;
    std::memcpy(&value, bytes_.data() + at_ - sizeof(T), sizeof(T));
    return value;
  }

  /// A view into the bytes.
  std::string_view text() {
    const auto length = number<uint64_t>();
    if (!take(length)) return {};
    return {reinterpret_cast<const char*>(bytes_.data() + at_ - length),
            static_cast<size_t>(length)};
  }

 private:
  bool take(uint64_t n) {
    good_ = good_ && n <= left();
    if (good_) at_ += n;
    return good_;
  }

  std::span<const std::byte> bytes_;
  uint64_t at_ = 0;  // never beyond the end
  bool good_ = true;
};

}  // namespace chimera
