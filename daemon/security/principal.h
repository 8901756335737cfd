// Principal: who asks. Calls, engine and registry see this, never a key.
//
// Thread safety: values; a shared one is immutable.
#pragma once

#include <chrono>
#include <cstdint>
#include <memory>
#include <optional>
#include <string>

#include "base/enum_names.h"
#include "daemon/engine/sequence/module_rights.h"

namespace chimera {

/// What a client may do; docs/security.md says which call needs which.
enum class Role : uint8_t { kUse, kObserve, kOperate, kAdmin };
inline constexpr auto kRoleNames = enum_names<Role>("use", "observe", "operate", "admin");

/// A set of roles.
class Roles {
 public:
  constexpr Roles() = default;
  template <class... More>
  constexpr explicit Roles(Role first, More... more) : bits_((bit(first) | ... | bit(more))) {}

  constexpr void add(Role role) { bits_ |= bit(role); }
  constexpr bool has(Role role) const { return (bits_ & bit(role)) != 0; }
  constexpr bool meets(Roles other) const { return (bits_ & other.bits_) != 0; }
  constexpr bool empty() const { return bits_ == 0; }
  constexpr bool operator==(const Roles&) const = default;
  /// "use, observe"
  std::string text() const {
    std::string out;
    for (size_t i = 0; i < kRoleNames.all().size(); ++i) {
      if (!has(static_cast<Role>(i))) continue;
      out += (out.empty() ? "" : ", ") + std::string(kRoleNames.all()[i]);
    }
    return out;
  }

 private:
  static constexpr uint8_t bit(Role role) {
    return static_cast<uint8_t>(1u << static_cast<unsigned>(role));
  }
  uint8_t bits_ = 0;
};

/// What a client may take at most; none: what the deployment lets everybody take.
struct ClientLimits {
  std::optional<int64_t> in_flight = std::nullopt;          // requests that run at once
  std::optional<int64_t> queued = std::nullopt;             // beside them, that wait
  std::optional<int64_t> tokens_per_minute = std::nullopt;  // of prompts and answers
  std::optional<int64_t> max_tokens = std::nullopt;         // of one answer
  std::optional<int64_t> max_context = std::nullopt;        // of one prompt and answer
};

struct Principal {
  std::string name;  // of the clients file; "uid:1000" of this user who is not listed
  Roles roles;
  ModuleRightsPtr modules = nullptr;  // null: all
  std::optional<std::chrono::system_clock::time_point> expires = std::nullopt;
  ClientLimits limits = {};
};
using PrincipalPtr = std::shared_ptr<const Principal>;

}  // namespace chimera
