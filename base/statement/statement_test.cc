#include "base/statement/statement.h"

#include <gtest/gtest.h>

#include <bit>

#include "base/json/reader.h"
#include "base/json/writer.h"
#include "base/statement/canonical.h"

namespace chimera {
namespace {

std::string canonical(std::string_view text) {
  const auto json = parse_json(text);
  return json.ok() ? canonical_json(*json) : json.status().message();
}

// The examples of RFC 8785, 3.2.2 and 3.2.3, and of its appendix B.
TEST(Canonical, AsTheStandardHasIt) {
  EXPECT_EQ(
      canonical(
          R"({"numbers": [333333333.33333329, 1E30, 4.50, 2e-3, 0.000000000000000000000000001],
                "string": "\u20ac$\u000F\u000aA'\u0042\u0022\u005c\\\"\/", "literals": [null, true, false]})"),
      "{\"literals\":[null,true,false],\"numbers\":[333333333.3333333,1e+30,4.5,0.002,1e-27],"
      "\"string\":\"€$\\u000f\\nA'B\\\"\\\\\\\\\\\"/\"}");
  EXPECT_EQ(
      canonical(R"({"\u20ac":1,"\r":2,"\ufb33":3,"1":4,"\ud83d\ude00":5,"\u0080":6,"\u00f6":7})"),
      "{\"\\r\":2,\"1\":4,\"\u0080\":6,\"ö\":7,\"€\":1,\"😀\":5,\"\ufb33\":3}");
  const std::pair<uint64_t, const char*> numbers[] = {
      {0x0000000000000000, "0"},
      {0x8000000000000000, "0"},
      {0x0000000000000001, "5e-324"},
      {0x8000000000000001, "-5e-324"},
      {0x7fefffffffffffff, "1.7976931348623157e+308"},
      {0x4340000000000000, "9007199254740992"},
      {0x44b52d02c7e14af5, "9.999999999999997e+22"},
      {0x44b52d02c7e14af6, "1e+23"},
      {0x444b1ae4d6e2ef4f, "999999999999999900000"},
      {0x444b1ae4d6e2ef50, "1e+21"},
      {0x3eb0c6f7a0b5ed8c, "9.999999999999997e-7"},
      {0x3eb0c6f7a0b5ed8d, "0.000001"},
      {0x41b3de4355555553, "333333333.3333332"},
      {0xbecbf647612f3696, "-0.0000033333333333333333"}};
  for (const auto& [bits, text] : numbers) {
    EXPECT_EQ(canonical_json(Json(std::bit_cast<double>(bits))), text);
  }
}

class Statements : public testing::Test {
 protected:
  static StatementSigner signer(uint8_t fill) {
    std::array<uint8_t, 32> secret{};
    secret.fill(fill);
    return StatementSigner::from_secret(secret);
  }
  static Code verified(const std::string& text, const std::string& kind = "receipt/1") {
    return verify_statement(text, kind, signer(7).public_key(), "r.json").status().code();
  }
  const Json statement_ = signer(7).sign({{"n", 1}, {"chimera", "receipt/1"}});
};

TEST_F(Statements, AreVerifiedWithThePublicKey) {
  const auto payload =
      verify_statement(write_json(statement_), "receipt/1", signer(7).public_key(), "r.json");
  ASSERT_TRUE(payload.ok()) << payload.status().to_string();
  EXPECT_EQ(*payload, (Json{{"chimera", "receipt/1"}, {"n", 1}}));
  EXPECT_EQ(signer(7).public_key(), signer(7).public_key());
  EXPECT_NE(signer(7).public_key(), signer(8).public_key());
  EXPECT_EQ(verify_statement(write_json(statement_), "receipt/1", signer(8).public_key(), "r")
                .status()
                .code(),
            Code::kPermissionDenied);
  EXPECT_EQ(verified(write_json(statement_), "revocation/1"), Code::kDataCorrupt);
  EXPECT_EQ(verified(write_json(signer(8).sign({{"chimera", "receipt/1"}}))),
            Code::kPermissionDenied);
}

TEST_F(Statements, EveryBitCounts) {
  const std::string good = write_json(statement_);
  ASSERT_EQ(verified(good), Code::kOk);
  for (size_t i = 0; i < good.size() * 8; ++i) {
    std::string changed = good;
    changed[i / 8] = static_cast<char>(changed[i / 8] ^ (1 << (i % 8)));
    EXPECT_NE(verified(changed), Code::kOk) << changed;
  }
  EXPECT_EQ(verified(good + "\n"), Code::kOk);
  for (const char* more : {"\n\n", " ", "\r\n", "{}"})
    EXPECT_EQ(verified(good + more), Code::kDataCorrupt);
  EXPECT_EQ(verified(write_json(statement_, {.indent = 1})), Code::kDataCorrupt);
  Json more = statement_;
  more["note"] = "paid";
  EXPECT_EQ(verified(canonical_json(more)), Code::kDataCorrupt);
  for (const char* part : {"key", "payload", "signature"}) {
    Json less = statement_;
    less.erase(part);
    EXPECT_EQ(verified(canonical_json(less)), Code::kDataCorrupt);
  }
}

TEST_F(Statements, DigestsAreThoseOfSha256) {
  EXPECT_EQ(digest_text("abc"),
            "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad");
}

}  // namespace
}  // namespace chimera
