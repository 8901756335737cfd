// The table (role, call): the one place that says what a call needs. docs/security.md prints it.
//
// Thread safety: constants and free functions.
#pragma once

#include <array>
#include <string>
#include <string_view>

#include "base/status.h"
#include "clients/wire/calls.h"
#include "daemon/security/principal.h"

namespace chimera {

struct CallRule {
  std::string_view call;
  wire::Endpoint endpoint;
  Roles roles;  // one of them suffices; `admin` always does
  /// Changes what is served: the record of it is on disk before it is acknowledged.
  bool change = false;
};

inline constexpr Roles kForUse{Role::kUse};
inline constexpr Roles kForAll{Role::kUse, Role::kObserve, Role::kOperate};
inline constexpr Roles kToSee{Role::kObserve, Role::kOperate};
inline constexpr Roles kToChange{Role::kOperate};
inline constexpr Roles kForAdmin{Role::kAdmin};

/// In the order of wire::kCalls, which the compiler checks.
inline constexpr std::array<CallRule, wire::kCalls.size()> kCallRules{{
    {"generate", wire::Endpoint::kServe, kForUse},
    {"chat", wire::Endpoint::kServe, kForUse},
    {"score", wire::Endpoint::kServe, kForUse},
    {"embed", wire::Endpoint::kServe, kForUse},
    {"tokenize", wire::Endpoint::kServe, kForUse},
    {"detokenize", wire::Endpoint::kServe, kForUse},
    {"cancel", wire::Endpoint::kServe, kForUse},
    {"info", wire::Endpoint::kServe, kForAll},
    {"health", wire::Endpoint::kServe, kForAll},
    {"modules", wire::Endpoint::kControl, kToSee},
    {"load", wire::Endpoint::kControl, kToChange, true},
    {"unload", wire::Endpoint::kControl, kToChange, true},
    {"revoke", wire::Endpoint::kControl, kToChange, true},
    {"plan", wire::Endpoint::kControl, kToChange},
    {"apply", wire::Endpoint::kControl, kToChange, true},
    {"rollback", wire::Endpoint::kControl, kToChange, true},
    {"epochs", wire::Endpoint::kControl, kToSee},
    {"routing", wire::Endpoint::kControl, kToSee},
    {"bias", wire::Endpoint::kControl, kToChange, true},
    {"blend", wire::Endpoint::kControl, kToChange, true},
    {"canary", wire::Endpoint::kControl, kToSee},
    {"promote", wire::Endpoint::kControl, kToChange, true},
    {"abort", wire::Endpoint::kControl, kToChange, true},
    {"enable", wire::Endpoint::kControl, kToChange, true},
    {"disable", wire::Endpoint::kControl, kToChange, true},
    {"requests", wire::Endpoint::kControl, kToSee},
    {"cancel", wire::Endpoint::kControl, kToChange},
    {"stats", wire::Endpoint::kControl, kToSee},
    {"audit", wire::Endpoint::kControl, kForAdmin},
    {"usage", wire::Endpoint::kControl, kToSee},
    {"drain", wire::Endpoint::kControl, kToChange, true},
    {"shutdown", wire::Endpoint::kControl, kForAdmin, true},
}};

namespace rules_detail {
constexpr bool cover_every_call() {
  for (size_t i = 0; i < kCallRules.size(); ++i) {
    if (kCallRules[i].call != wire::kCalls[i].name) return false;
    if (kCallRules[i].endpoint != wire::kCalls[i].endpoint) return false;
    if (kCallRules[i].roles.empty()) return false;
  }
  return true;
}
static_assert(cover_every_call(), "a call has no rule, or not at its place");
}  // namespace rules_detail

const CallRule& rule_of(const wire::Call& call);

/// permission_denied naming the call and the roles that it needs.
Status check_role(const Principal& principal, const CallRule& rule);

/// The table as docs/security.md shows it.
std::string rules_table();

}  // namespace chimera
