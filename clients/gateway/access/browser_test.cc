#include "clients/gateway/access/browser.h"

#include <gtest/gtest.h>

namespace chimera::gateway {
namespace {

Request with(Headers headers) {
  Request request;
  request.method = "GET";
  request.headers = std::move(headers);
  return request;
}

TEST(Browser, AHostIsAnAddressOrAKnownName) {
  const BrowserRules rules{.hosts = {"gateway.example"}};
  for (const char* good : {"127.0.0.1", "127.0.0.1:80", "[::1]:8080", "[::1]", "localhost:1",
                           "192.168.1.7:8080", "gateway.example", "gateway.example:443"}) {
    EXPECT_FALSE(check_host(with({{"host", good}}), rules)) << good;
  }
  for (const char* bad : {"", "evil.example", "localhost.evil.example", "127.0.0.1.evil.example",
                          "[::1", "1", "gateway.example.evil"}) {
    EXPECT_TRUE(check_host(with({{"host", bad}}), rules)) << bad;
  }
  EXPECT_TRUE(check_host(with({}), rules));
}

TEST(Browser, AnOriginIsTheGatewaysOwnOrAPermittedOne) {
  const BrowserRules rules{.origins = {"https://page.example"}};
  const auto permitted = [&](const char* origin, bool secure = false) {
    Request request = with({{"host", "127.0.0.1:8080"}, {"origin", origin}});
    request.secure = secure;
    return !check_origin(request, rules);
  };
  EXPECT_TRUE(permitted("http://127.0.0.1:8080"));
  EXPECT_TRUE(permitted("https://127.0.0.1:8080", /*secure=*/true));
  EXPECT_TRUE(permitted("https://page.example"));
  for (const char* bad : {"https://127.0.0.1:8080", "http://127.0.0.1", "http://localhost:8080",
                          "null", "https://page.example.evil", "http://page.example"}) {
    EXPECT_FALSE(permitted(bad)) << bad;
  }
}

TEST(Browser, AnswersAreReadableForPermittedOriginsAlone) {
  const BrowserRules rules{.origins = {"https://page.example"}};
  const Headers cors = cors_headers(with({{"origin", "https://page.example"}}), rules);
  ASSERT_FALSE(cors.empty());
  EXPECT_EQ(cors[0].second, "https://page.example");
  EXPECT_TRUE(cors_headers(with({{"origin", "https://other.example"}}), rules).empty());
  EXPECT_TRUE(cors_headers(with({}), rules).empty());
}

}  // namespace
}  // namespace chimera::gateway
