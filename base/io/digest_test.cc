#include "base/io/digest.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <cerrno>
#include <cstdio>
#include <fstream>

#include "base/io/fault_env.h"

namespace chimera {
namespace {

// FIPS 180-4 examples.
constexpr const char* kEmpty =
    "sha256:e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855";
constexpr const char* kAbc =
    "sha256:ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad";
constexpr const char* kMillionA =
    "sha256:cdc76e5c9914fb9281a1c7e284d73e67f1809a48a497200e046d39ccc7112cd0";

TEST(Sha256Test, KnownAnswers) {
  EXPECT_EQ(sha256_of(""), kEmpty);
  EXPECT_EQ(sha256_of("abc"), kAbc);
  Sha256 hash;
  for (int i = 0; i < 1000; ++i) hash.update(std::string(1000, 'a'));
  EXPECT_EQ(hash.finish(), kMillionA);
}

TEST(Sha256Test, FieldsDoNotRunIntoOneAnother) {
  const auto of_fields = [](std::string_view a, std::string_view b) {
    Sha256 hash;
    hash.update_field(a);
    hash.update_field(b);
    return hash.finish();
  };
  EXPECT_NE(of_fields("ab", "c"), of_fields("a", "bc"));
  EXPECT_EQ(of_fields("ab", "c"), of_fields("ab", "c"));
  Sha256 number;
  number.update_u64(0x0807060504030201);
  EXPECT_EQ(number.finish(), sha256_of("\x01\x02\x03\x04\x05\x06\x07\x08"));
}

TEST(Sha256Test, OfFile) {
  const std::string path = testing::TempDir() + "digest_" + std::to_string(::getpid());
  std::ofstream(path) << std::string(1'000'000, 'a');
  FaultEnv env;
  env.limit_io(1017);
  EXPECT_EQ(sha256_of_file(path, env).value(), kMillionA);
  for (const auto call : {FaultEnv::kOpen, FaultEnv::kRead}) {
    for (const int error : {EIO, EINTR}) {
      for (int n = 1;; ++n) {
        FaultEnv failing;
        failing.fail_nth(call, n, error);
        const auto digest = sha256_of_file(path, failing);
        EXPECT_EQ(failing.open_fds(), 0);
        if (!failing.fired()) break;
        EXPECT_EQ(digest.ok(), error == EINTR);
        if (digest.ok()) {
          EXPECT_EQ(*digest, kMillionA);
        }
      }
    }
  }
  std::remove(path.c_str());
  EXPECT_EQ(sha256_of_file(path).status().code(), Code::kNotFound);
}

TEST(Sha256Test, RecognisesItsOwnSpelling) {
  EXPECT_TRUE(is_sha256(kAbc));
  EXPECT_FALSE(is_sha256(""));
  EXPECT_FALSE(is_sha256(std::string(kAbc) + "0"));
  EXPECT_FALSE(is_sha256(std::string(kAbc).substr(0, 70)));
  EXPECT_FALSE(is_sha256(std::string("sha512:") + std::string(kAbc).substr(7)));
  std::string upper = kAbc;
  upper[7] = 'B';
  EXPECT_FALSE(is_sha256(upper));
}

}  // namespace
}  // namespace chimera
