// API keys and the principals they stand for.
//
// Kept are digests of keys, not keys. Whoever presents one is compared with all of them in constant
// time.
//
// Thread safety: values; a const Keys from any thread.
#pragma once

#include <memory>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/enum_names.h"
#include "base/status.h"
#include "clients/gateway/http/message.h"

namespace chimera::gateway {

/// What a caller may do. Changing includes nothing else: each right is given by name.
enum class Right : uint8_t { kGenerate, kObserve, kChange };
inline constexpr auto kRightNames = enum_names<Right>("generate", "observe", "change");

struct Principal {
  std::string name;
  bool generate = false;                              // text, tokens, scores
  bool observe = false;                               // what is loaded and how it is used
  bool change = false;                                // what is loaded
  std::optional<std::vector<std::string>> modules{};  // all it may use; else every one
  std::optional<int64_t> streams{};                   // at once

  bool may(Right right) const;
  void allow(Right right);
};

class Keys {
 public:
  /// `digest`: of a key, "sha256:…" as key_digest() makes it.
  void add(std::string digest, Principal principal);
  /// Null when nobody has that key.
  std::shared_ptr<const Principal> find(std::string_view key) const;
  size_t size() const { return entries_.size(); }

 private:
  struct Entry {
    std::string digest;
    std::shared_ptr<const Principal> principal;
  };
  std::vector<Entry> entries_;
};

std::string key_digest(std::string_view key);

/// "chimera-" and 256 random bits. Fails where the system has no randomness.
Result<std::string> new_key();

/// The key of the file, which is made (0600, its directory 0700) when there is none. One that
/// others may read is refused.
Result<std::string> admin_key(const std::string& path);

/// The key that a request brings: Authorization: Bearer …, or x-api-key.
std::optional<std::string_view> presented_key(const Request& request);

}  // namespace chimera::gateway
