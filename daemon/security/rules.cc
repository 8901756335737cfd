#include "daemon/security/rules.h"

#include <fmt/format.h>

namespace chimera {
namespace {

bool allows(const CallRule& rule, Role role) {
  return role == Role::kAdmin || rule.roles.has(role);
}

}  // namespace

const CallRule& rule_of(const wire::Call& call) { return kCallRules[call.index()]; }

Status check_role(const Principal& principal, const CallRule& rule) {
  if (principal.roles.has(Role::kAdmin) || principal.roles.meets(rule.roles)) return {};
  const std::string needed = rule.roles == kForAdmin ? "" : rule.roles.text() + ", ";
  return {Code::kPermissionDenied,
          fmt::format("{}: client {} has the roles {} (expected one of {}admin)", rule.call,
                      principal.name, principal.roles.text(), needed),
          "ask an administrator of the daemon, who keeps its clients file"};
}

std::string rules_table() {
  std::string out = "| call | endpoint |";
  std::string line = "\n| --- | --- |";
  for (const std::string_view role : kRoleNames.all()) {
    out += fmt::format(" {} |", role);
    line += " :-: |";
  }
  out += line + "\n";
  for (const CallRule& rule : kCallRules) {
    out += fmt::format("| `{}` | {} |", rule.call,
                       rule.endpoint == wire::Endpoint::kServe ? "serve" : "control");
    for (size_t i = 0; i < kRoleNames.all().size(); ++i) {
      out += allows(rule, static_cast<Role>(i)) ? " yes |" : " |";
    }
    out += "\n";
  }
  return out;
}

}  // namespace chimera
