#include "clients/gateway/page/page.h"

#include <gmock/gmock.h>

namespace chimera::gateway {
namespace {

using testing::HasSubstr;
using testing::Not;

Request get(std::string path, Headers headers = {}) {
  Request request;
  request.method = "GET";
  request.path = std::move(path);
  request.headers = std::move(headers);
  return request;
}

std::string header(const Response& response, std::string_view name) {
  for (const auto& [key, value] : response.headers) {
    if (key == name) return value;
  }
  return "";
}

TEST(Page, HasItsFilesAndNothingElse) {
  for (const char* path : {"/", "/index.html", "/console.js", "/console.css"}) {
    EXPECT_TRUE(page::has(path)) << path;
  }
  for (const char* path : {"", "//", "/console.j", "/../console.js", "index.html", "/dist/"}) {
    EXPECT_FALSE(page::has(path)) << path;
  }
  EXPECT_EQ(page::answer(get("/")).body, page::answer(get("/index.html")).body);
}

TEST(Page, RunsNothingThatIsWrittenIntoTheDocument) {
  const Response index = page::answer(get("/"));
  EXPECT_EQ(index.content_type, "text/html; charset=utf-8");
  EXPECT_THAT(index.body, HasSubstr("/console.js"));
  EXPECT_THAT(index.body, HasSubstr("/console.css"));
  EXPECT_THAT(index.body, Not(HasSubstr("<style")));
  EXPECT_THAT(index.body, Not(HasSubstr("http")));  // no address but the gateway's
  const std::string policy = header(index, "content-security-policy");
  EXPECT_THAT(policy, HasSubstr("default-src 'none'"));
  EXPECT_THAT(policy, Not(HasSubstr("unsafe")));
  EXPECT_EQ(header(index, "referrer-policy"), "no-referrer");
  EXPECT_EQ(page::answer(get("/console.js")).content_type, "text/javascript; charset=utf-8");
}

TEST(Page, IsSentAgainOnlyWhenItChanged) {
  const Response first = page::answer(get("/console.js"));
  const std::string tag = header(first, "etag");
  ASSERT_FALSE(tag.empty());
  const Response again = page::answer(get("/console.js", {{"if-none-match", tag}}));
  EXPECT_EQ(again.status, 304u);
  EXPECT_EQ(again.body, "");
  EXPECT_EQ(header(again, "etag"), tag);
  EXPECT_EQ(page::answer(get("/console.css", {{"if-none-match", tag}})).status, 200u);
}

}  // namespace
}  // namespace chimera::gateway
