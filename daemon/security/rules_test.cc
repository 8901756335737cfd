// The table (role, call), and the documents that print it.
#include "daemon/security/rules.h"

#include <gtest/gtest.h>

#include <cstdlib>
#include <fstream>
#include <sstream>

namespace chimera {
namespace {

Principal with(Roles roles) {
  Principal out;
  out.name = "someone";
  out.roles = roles;
  return out;
}

const CallRule& rule(std::string_view call, wire::Endpoint endpoint) {
  for (const CallRule& one : kCallRules) {
    if (one.call == call && one.endpoint == endpoint) return one;
  }
  std::abort();
}

TEST(Rules, AdminMayAllAndNobodyNothing) {
  for (const CallRule& one : kCallRules) {
    EXPECT_TRUE(check_role(with(Roles(Role::kAdmin)), one).ok()) << one.call;
    EXPECT_EQ(check_role(with(Roles()), one).code(), Code::kPermissionDenied) << one.call;
  }
}

TEST(Rules, WhoUsesChangesNothingAndWhoOperatesReadsNoPrompts) {
  const Principal user = with(Roles(Role::kUse)), operate = with(Roles(Role::kOperate));
  const Principal observer = with(Roles(Role::kObserve));
  for (const CallRule& one : kCallRules) {
    const bool serve = one.endpoint == wire::Endpoint::kServe;
    EXPECT_EQ(check_role(user, one).ok(), serve) << one.call;
    EXPECT_FALSE(one.change && check_role(observer, one).ok()) << one.call;
  }
  EXPECT_TRUE(check_role(user, rule("generate", wire::Endpoint::kServe)).ok());
  EXPECT_FALSE(check_role(operate, rule("generate", wire::Endpoint::kServe)).ok());
  EXPECT_TRUE(check_role(operate, rule("load", wire::Endpoint::kControl)).ok());
  EXPECT_FALSE(check_role(operate, rule("shutdown", wire::Endpoint::kControl)).ok());
  EXPECT_FALSE(check_role(operate, rule("audit", wire::Endpoint::kControl)).ok());
  const Status refusal = check_role(user, rule("load", wire::Endpoint::kControl));
  EXPECT_EQ(refusal.message(),
            "load: client someone has the roles use (expected one of operate, admin)");
}

TEST(Rules, TheDocumentPrintsThem) {
  const std::string path = CHIMERA_SOURCE_DIR "/docs/security.md";
  const std::string begin = "<!-- calls: written from daemon/security/rules.h -->\n";
  const std::string end = "<!-- end of calls -->\n";
  std::ostringstream read;
  read << std::ifstream(path).rdbuf();
  std::string text = read.str();
  const size_t from = text.find(begin), to = text.find(end);
  ASSERT_NE(from, std::string::npos);
  ASSERT_NE(to, std::string::npos);
  std::string wanted = text;
  wanted.replace(from + begin.size(), to - from - begin.size(), rules_table());
  if (std::getenv("CHIMERA_UPDATE") != nullptr) std::ofstream(path) << wanted;
  EXPECT_EQ(text, wanted) << "CHIMERA_UPDATE=1 writes " << path << " anew";
}

}  // namespace
}  // namespace chimera
