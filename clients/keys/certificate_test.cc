#include "clients/keys/certificate.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <filesystem>
#include <fstream>

namespace chimera::keys {
namespace {

using testing::HasSubstr;

class Keys : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::temp_directory_path() / "chimera-keys-XXXXXX";
    ASSERT_NE(mkdtemp(dir_.data()), nullptr);
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  std::string dir_;
};

TEST_F(Keys, WrittenAndReadBack) {
  const auto made = make_certificate("alice");
  ASSERT_TRUE(made.ok());
  ASSERT_TRUE(write_certificate(*made, dir_ + "/keys").ok());
  struct stat info {};
  ASSERT_EQ(stat((dir_ + "/keys/alice.key").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777u, 0600u);
  const auto secret = read_secret(dir_ + "/keys/alice.key");
  ASSERT_TRUE(secret.ok()) << secret.status().to_string();
  EXPECT_EQ(secret->name, "alice");
  EXPECT_EQ(secret->secret_key, made->secret_key);
  EXPECT_EQ(made->statement_key, key_text(statement_signer(made->secret_key).public_key()));
  for (const char* file : {"/keys/alice.pub", "/keys/alice.key"}) {
    const auto open = read_public(dir_ + file);
    ASSERT_TRUE(open.ok());
    EXPECT_EQ(open->public_key, made->public_key);
    EXPECT_EQ(open->secret_key, "");
    EXPECT_EQ(open->statement_key, made->statement_key);
  }
  EXPECT_EQ(read_secret(dir_ + "/keys/alice.pub").status().code(), Code::kPermissionDenied);
}

TEST_F(Keys, NeverOverOthers) {
  const auto one = make_certificate("a"), two = make_certificate("a");
  ASSERT_TRUE(write_certificate(*one, dir_).ok());
  EXPECT_EQ(write_certificate(*two, dir_).code(), Code::kAlreadyExists);
  EXPECT_EQ(read_secret(dir_ + "/a.key")->secret_key, one->secret_key);
  // A public key alone is one as well.
  std::filesystem::remove(dir_ + "/a.key");
  EXPECT_EQ(write_certificate(*two, dir_).code(), Code::kAlreadyExists);
  EXPECT_FALSE(std::filesystem::exists(dir_ + "/a.key"));
}

TEST_F(Keys, SecretsThatOthersCanReadAreRefused) {
  const auto made = make_certificate("a");
  ASSERT_TRUE(write_certificate(*made, dir_).ok());
  for (const mode_t mode : {0640u, 0604u, 0620u, 0610u}) {
    chmod((dir_ + "/a.key").c_str(), mode);
    const Status status = read_secret(dir_ + "/a.key").status();
    EXPECT_EQ(status.code(), Code::kPermissionDenied) << mode;
    EXPECT_THAT(status.to_string(), HasSubstr("chmod 600"));
  }
}

TEST_F(Keys, WhatIsNoCertificateIsRefused) {
  const auto made = make_certificate("a"), other = make_certificate("b");
  const std::string good = format_certificate(*made, true);
  ASSERT_TRUE(parse_certificate(good, "f").ok());
  const auto refused = [&](std::string text, const char* why) {
    const Status status = parse_certificate(text, "f").status();
    EXPECT_EQ(status.code(), Code::kInvalidArgument) << text;
    EXPECT_THAT(status.message(), HasSubstr(why)) << text;
    EXPECT_EQ(status.message().find(made->secret_key), std::string::npos);
  };
  refused("", "no public-key");
  refused("curve\n  public-key = \"short\"\n", "f:2: public-key: found 5 characters");
  refused("curve\n  public-key = \"" + std::string(40, '~') + "\"\n", "Z85");
  refused("curve\n  public = \"" + made->public_key + "\"\n", "expected public-key or secret-key");
  refused(good + "    public-key = \"" + made->public_key + "\"\n", "each once");
  std::string mixed = good;
  mixed.replace(mixed.find(made->public_key), kKeyChars, other->public_key);
  refused(mixed, "public-key: found another than that of secret-key");
  mixed = good;
  mixed.replace(mixed.find(made->statement_key), made->statement_key.size(), other->statement_key);
  refused(mixed, "statement-key: found another than that of secret-key");
  mixed.replace(mixed.find(other->statement_key), 4, "====");
  refused(mixed, "f:6: statement-key: found no key of statements");
}

TEST_F(Keys, ReadsWhatCzmqAndPyzmqWrite) {
  const auto made = make_certificate("a");
  const std::string czmq =
      "#   ****  Generated on 2026-11-27 10:00:00 by CZMQ  ****\n\nmetadata\n"
      "    name = \"a\"\n    email = \"a@b.c\"\ncurve\n    public-key = \"" +
      made->public_key + "\"\n";
  EXPECT_EQ(parse_certificate(czmq, "f")->public_key, made->public_key);
  const std::string pyzmq = "metadata\ncurve\n    public-key = \"" + made->public_key +
                            "\"\n    secret-key = \"" + made->secret_key + "\"\n";
  EXPECT_EQ(parse_certificate(pyzmq, "f")->secret_key, made->secret_key);
}

}  // namespace
}  // namespace chimera::keys
