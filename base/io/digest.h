// SHA-256 digests, written "sha256:<64 hex digits>" everywhere (manifests, state, wire, logs).
//
// Thread safety: a Sha256 by one thread; free functions from any.
#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <span>
#include <string>
#include <string_view>

#include "base/io/env.h"
#include "base/status.h"

namespace chimera {

/// Incremental SHA-256 (OpenSSL, which uses the instructions of the processor for it). One per
/// computation.
class Sha256 {
 public:
  Sha256();
  ~Sha256();
  Sha256(const Sha256&) = delete;
  Sha256& operator=(const Sha256&) = delete;

  void update(std::span<const std::byte> bytes);
  void update(std::string_view text);
  /// Adds the length first, so that consecutive fields cannot run into one another.
  void update_field(std::string_view text);
  void update_u64(uint64_t value);  // little-endian
  /// "sha256:…". The object must not be used afterwards.
  std::string finish();

 private:
  struct State;
  std::unique_ptr<State> state_;
};

std::string sha256_of(std::string_view text);
/// Digest of a whole regular file, read through the descriptor it opens (no path re-open races).
Result<std::string> sha256_of_file(const std::string& path, Env& env = Env::system());
/// True for "sha256:" followed by 64 lower-case hex digits.
bool is_sha256(std::string_view text);

}  // namespace chimera
