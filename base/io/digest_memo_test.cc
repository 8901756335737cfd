#include "base/io/digest_memo.h"

#include <gtest/gtest.h>

#include <random>
#include <string>
#include <thread>
#include <vector>

#include "base/io/digest.h"

namespace chimera {
namespace {

std::vector<std::byte> random_bytes(size_t n, uint32_t seed) {
  std::mt19937 random(seed);
  std::vector<std::byte> bytes(n);
  for (std::byte& b : bytes) b = static_cast<std::byte>(random());
  return bytes;
}

std::string plain(const std::vector<std::byte>& bytes) {
  return sha256_of(std::string_view(reinterpret_cast<const char*>(bytes.data()), bytes.size()));
}

TEST(DigestMemo, GivesTheDigestTheFirstTimeAndAgain) {
  DigestMemo memo;
  uint64_t contents = 0;
  for (const size_t n : {0u, 1u, 15u, 16u, 65536u, 262143u, 262144u, 262145u, 1000000u}) {
    const std::vector<std::byte> bytes = random_bytes(n, static_cast<uint32_t>(n));
    EXPECT_EQ(memo.sha256_of(bytes), plain(bytes)) << n;
    EXPECT_EQ(memo.hashed(), ++contents) << n;
    EXPECT_EQ(memo.sha256_of(bytes), plain(bytes)) << n;
    EXPECT_EQ(memo.hashed(), contents) << n << ": hashed in full again";
  }
}

TEST(DigestMemo, SeesEveryChangedBit) {
  DigestMemo memo;
  std::vector<std::byte> bytes = random_bytes(300'000, 7);
  const std::string before = memo.sha256_of(bytes);
  // Both sides of the pieces that it is taken in, and both ends.
  for (const size_t at : {size_t{0}, size_t{262143}, size_t{262144}, bytes.size() - 1}) {
    for (const int bit : {0, 7}) {
      bytes[at] ^= static_cast<std::byte>(1 << bit);
      const std::string changed = memo.sha256_of(bytes);
      EXPECT_NE(changed, before) << at;
      EXPECT_EQ(changed, plain(bytes)) << at;
      bytes[at] ^= static_cast<std::byte>(1 << bit);
    }
  }
  // One byte fewer, and a zero more: padding must not make contents alike.
  EXPECT_EQ(memo.sha256_of(std::span(bytes).first(bytes.size() - 1)),
            plain({bytes.begin(), bytes.end() - 1}));
  bytes.push_back(std::byte{0});
  EXPECT_EQ(memo.sha256_of(bytes), plain(bytes));
}

TEST(DigestMemo, ForgetsWhatWasNotUsedForLong) {
  DigestMemo memo;
  const auto content = [](uint32_t i) { return random_bytes(32, i); };
  for (uint32_t i = 0; i < 3000; ++i) {
    memo.sha256_of(content(i));
    memo.sha256_of(content(0));  // kept by use
  }
  const uint64_t hashed = memo.hashed();
  EXPECT_EQ(hashed, 3000u);
  memo.sha256_of(content(0));
  memo.sha256_of(content(2999));
  EXPECT_EQ(memo.hashed(), hashed);
  EXPECT_EQ(memo.sha256_of(content(1)), plain(content(1)));
  EXPECT_EQ(memo.hashed(), hashed + 1);
}

TEST(DigestMemo, ServesSeveralThreads) {
  DigestMemo memo;
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t)
    threads.emplace_back([&] {
      for (uint32_t i = 0; i < 200; ++i) {
        const std::vector<std::byte> bytes = random_bytes(500, i % 20);
        ASSERT_EQ(memo.sha256_of(bytes), plain(bytes));
      }
    });
  for (std::thread& thread : threads) thread.join();
  EXPECT_GE(memo.hashed(), 20u);
  EXPECT_LE(memo.hashed(), 80u);  // a content may be hashed by all four at the same time
}

}  // namespace
}  // namespace chimera
