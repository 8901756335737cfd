#include "base/minisign/minisign.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <sstream>

namespace chimera::minisign {
namespace {

SecretKey key() { return *make_key(); }

TEST(Minisign, WhatIsSignedIsVerifiedAndNothingElse) {
  const SecretKey mine = key(), other = key();
  const std::string message = "chimera: module/1\nname: legal\n";
  const std::string text = sign(message, mine, "timestamp:1 file:module.yaml");
  const auto signature = parse_signature(text, "s");
  ASSERT_TRUE(signature.ok()) << signature.status().to_string();
  EXPECT_EQ(signature->comment, "timestamp:1 file:module.yaml");
  EXPECT_TRUE(verify(message, *signature, mine.public_key()));
  EXPECT_FALSE(verify(message + " ", *signature, mine.public_key()));
  EXPECT_FALSE(verify(message, *signature, other.public_key()));
  PublicKey impostor = other.public_key();
  impostor.id = mine.id;
  EXPECT_FALSE(verify(message, *signature, impostor));
}

TEST(Minisign, EveryFlippedBitIsRefused) {
  const SecretKey mine = key();
  const std::string message = "name: legal\n";
  const std::string text = sign(message, mine, "file:module.yaml");
  for (size_t i = 0; i < text.size(); ++i) {
    for (int bit = 0; bit < 8; ++bit) {
      std::string flipped = text;
      flipped[i] = static_cast<char>(flipped[i] ^ (1 << bit));
      const auto signature = parse_signature(flipped, "s");
      EXPECT_FALSE(signature.ok() && verify(message, *signature, mine.public_key()))
          << i << ' ' << bit;
    }
  }
  for (size_t i = 0; i < message.size() * 8; ++i) {
    std::string flipped = message;
    flipped[i / 8] = static_cast<char>(flipped[i / 8] ^ (1 << i % 8));
    EXPECT_FALSE(verify(flipped, *parse_signature(text, "s"), mine.public_key()));
  }
}

TEST(Minisign, KeysAreReadBack) {
  const SecretKey mine = key();
  const auto secret = parse_secret_key(format_secret_key(mine), "k");
  ASSERT_TRUE(secret.ok());
  EXPECT_EQ(secret->key, mine.key);
  EXPECT_EQ(*parse_public_key(format_public_key(mine.public_key()), "k"), mine.public_key());
  EXPECT_FALSE(parse_public_key(format_secret_key(mine), "k").ok());
  EXPECT_FALSE(parse_secret_key(format_public_key(mine.public_key()), "k").ok());
  std::string broken = format_secret_key(mine);
  const size_t at = broken.size() - 60;
  broken[at] = broken[at] == 'A' ? 'B' : 'A';
  EXPECT_FALSE(parse_secret_key(broken, "k").ok());
}

/// The program itself, both ways.
TEST(Minisign, AgreesWithMinisign) {
  if (std::system("minisign -v >/dev/null 2>&1") != 0) GTEST_SKIP() << "minisign is not installed";
  std::string dir = std::filesystem::temp_directory_path() / "chimera-minisign-XXXXXX";
  ASSERT_NE(mkdtemp(dir.data()), nullptr);
  const auto run = [&](const std::string& command) {
    return std::system(("cd " + dir + " && " + command + " >/dev/null 2>&1").c_str());
  };
  const auto read = [&](const std::string& name) {
    std::ostringstream text;
    text << std::ifstream(dir + "/" + name).rdbuf();
    return text.str();
  };
  const std::string message = "name: legal\nversion: 1.0.0\n";
  std::ofstream(dir + "/module.yaml") << message;
  const SecretKey mine = key();
  std::ofstream(dir + "/ours.pub") << format_public_key(mine.public_key());
  std::ofstream(dir + "/ours.key") << format_secret_key(mine);
  std::ofstream(dir + "/module.yaml.minisig") << sign(message, mine, "file:module.yaml");
  EXPECT_EQ(run("minisign -V -p ours.pub -m module.yaml"), 0);
  // Their signature with our key, and with a key of theirs.
  ASSERT_EQ(run("minisign -S -s ours.key -m module.yaml -x theirs.sig"), 0);
  EXPECT_TRUE(verify(message, *parse_signature(read("theirs.sig"), "s"), mine.public_key()));
  ASSERT_EQ(run("minisign -G -W -p their.pub -s their.key"), 0);
  const auto their_public = parse_public_key(read("their.pub"), "p");
  const auto their_secret = parse_secret_key(read("their.key"), "k");
  ASSERT_TRUE(their_public.ok() && their_secret.ok());
  EXPECT_EQ(their_secret->public_key(), *their_public);
  std::filesystem::remove_all(dir);
}

}  // namespace
}  // namespace chimera::minisign
