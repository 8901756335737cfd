#include "base/bytes.h"

#include <gtest/gtest.h>

namespace chimera {
namespace {

TEST(Bytes, AreReadAsPeopleWriteThem) {
  EXPECT_EQ(parse_bytes("1KiB"), 1024u);
  EXPECT_EQ(parse_bytes("512 MiB"), 512u << 20);
  EXPECT_EQ(parse_bytes("4GiB"), 4ull << 30);
  EXPECT_EQ(parse_bytes("2TiB"), 2ull << 40);
  EXPECT_EQ(parse_bytes("0GiB"), 0u);
  for (const char* bad : {"", "4", "GiB", "4GB", "4gib", "-1GiB", "1.5GiB", "4 GiB ", "4  GiB",
                          " 4GiB", "99999999999TiB", "18446744073709551616KiB", "4GiBs"}) {
    EXPECT_EQ(parse_bytes(bad), std::nullopt) << bad;
  }
}

TEST(Bytes, AreShownWithThreeDigits) {
  EXPECT_EQ(bytes_text(1), "1 byte");
  EXPECT_EQ(bytes_text(1023), "1023 bytes");
  EXPECT_EQ(bytes_text(1536), "1.5 KiB");
  EXPECT_EQ(bytes_text(400u << 20), "400 MiB");
  EXPECT_EQ(bytes_text(13'800'000'000), "12.9 GiB");
  EXPECT_EQ(bytes_text(3ull << 50), "3072 TiB");
}

}  // namespace
}  // namespace chimera
