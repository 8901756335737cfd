// SHA-256 of contents seen before, at a fraction of its price.
//
// A daemon loads the same modules again and again, and SHA-256 is most of what a load costs on a
// CPU without instructions for it: 0.25 to 0.4 GB/s, against 2 to 5 GB/s of Poly1305 (RFC 8439).
// The memo keeps pairs of a Poly1305 tag under a random key of its own and the SHA-256 that was
// computed together with it. Every byte is still looked at, every time: other bytes give another
// tag but for a chance below length / 2^90, and since neither key nor tags leave the process,
// nobody can aim for that chance.
//
// Thread safety: any thread.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <list>
#include <span>
#include <string>

#include "base/threads/mutex.h"

namespace chimera {

class DigestMemo {
 public:
  /// Throws std::bad_alloc when there is no randomness to be had.
  DigestMemo();
  ~DigestMemo();
  DigestMemo(const DigestMemo&) = delete;
  DigestMemo& operator=(const DigestMemo&) = delete;

  /// "sha256:…" of `bytes`. Gives way (background.h).
  std::string sha256_of(std::span<const std::byte> bytes);

  /// How many contents were hashed in full so far (for tests).
  uint64_t hashed() const;

 private:
  using Tag = std::array<unsigned char, 16>;
  struct Known {
    Tag tag;
    uint64_t size;
    std::string digest;
  };

  Tag tag_of(std::span<const std::byte> bytes) const;
  std::string recall(const Tag& tag, uint64_t size);

  std::array<unsigned char, 32> key_;
  mutable Mutex mutex_;
  std::list<Known> known_ GUARDED_BY(mutex_);  // the last used in front
  uint64_t hashed_ GUARDED_BY(mutex_) = 0;
};

/// By `memo`, or plainly where there is none.
std::string sha256_of(std::span<const std::byte> bytes, DigestMemo* memo);

}  // namespace chimera
