#include "daemon/security/module_trust.h"

#include <gmock/gmock.h>
#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>

#include "base/io/digest.h"

namespace chimera {
namespace {

using testing::HasSubstr;
namespace fs = std::filesystem;

class Trust : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = fs::temp_directory_path() / "chimera-trust-XXXXXX";
    ASSERT_NE(mkdtemp(dir_.data()), nullptr);
    fs::create_directories(keys() + "/revoked");
    fs::create_directories(module());
    key_ = *minisign::make_key();
    write(keys() + "/owner.pub", minisign::format_public_key(key_.public_key()));
    write(module() + "/module.yaml", kText);
    sign(key_, "file:module.yaml");
    manifest_.name = "legal";
    manifest_.version = "1.2.0";
    manifest_.digest = sha256_of(kText);
  }
  void TearDown() override { fs::remove_all(dir_); }
  static void write(const std::string& file, const std::string& text) {
    std::ofstream(file) << text;
  }
  std::string keys() const { return dir_ + "/keys"; }
  std::string module() const { return dir_ + "/legal"; }
  void sign(const minisign::SecretKey& key, const std::string& comment) {
    write(module() + "/module.yaml.minisig", minisign::sign(kText, key, comment));
  }
  Status check(bool require = true) { return check_at(module(), require); }
  Status check_at(const std::string& module_dir, bool require = true) {
    const auto trust =
        ModuleTrust::open({roots_, keys(), require, {{"bio", "2.0"}, {"legal", "1.2.0"}}});
    return trust.ok() ? (*trust)->check(module_dir, manifest_) : trust.status();
  }
  void refused(const char* why) {
    const Status status = check();
    EXPECT_EQ(status.code(), Code::kPermissionDenied);
    EXPECT_THAT(status.message(), HasSubstr("module legal 1.2.0: "));
    EXPECT_THAT(status.message(), HasSubstr(why));
  }

  const std::string kText = "chimera: module/1\nname: legal\n";
  std::vector<std::string> roots_;
  std::string dir_;
  minisign::SecretKey key_;
  Manifest manifest_;
};

TEST_F(Trust, ASignedModuleIsLetIn) { EXPECT_TRUE(check().ok()) << check().to_string(); }

TEST_F(Trust, OthersAreRefusedByNameWithTheReason) {
  fs::remove(module() + "/module.yaml.minisig");
  refused("not signed");
  EXPECT_TRUE(check(/*require=*/false).ok());
  sign(*minisign::make_key(), "");
  refused("unknown key");
  sign(key_, "expires:2001-01-01");
  refused("expired");
  sign(key_, "expires:soon");
  refused("expired");
  sign(key_, "expires:2999-01-01");
  EXPECT_TRUE(check().ok());
  fs::rename(keys() + "/owner.pub", keys() + "/revoked/owner.pub");
  refused("revoked key");
}

TEST_F(Trust, WhatIsVerifiedIsWhatWasRead) {
  manifest_.digest = sha256_of("something else");
  EXPECT_EQ(check().code(), Code::kUnavailable);
  write(module() + "/module.yaml", kText + "#");
  manifest_.digest = sha256_of(kText + "#");
  refused("another content");
}

TEST_F(Trust, OlderThanTheMinimum) {
  manifest_.version = "1.1.9";
  EXPECT_THAT(check().message(), HasSubstr("too old (expected 1.2.0 or later)"));
  for (const auto& [x, y] : std::vector<std::pair<std::string, std::string>>{
           {"1.2.0", "1.10.0"}, {"1.2", "1.2.1"}, {"2.0.0-rc1", "2.0.0"}, {"0", "0.0.1"}}) {
    EXPECT_TRUE(is_older(x, y)) << x << ' ' << y;
    EXPECT_FALSE(is_older(y, x)) << x << ' ' << y;
  }
  EXPECT_FALSE(is_older("1.2", "1.2.0"));
}

TEST_F(Trust, PlacesThatEverybodyCanWrite) {
  chmod(module().c_str(), 0777);
  EXPECT_EQ(check().code(), Code::kPermissionDenied);
  chmod(module().c_str(), 0775);
  EXPECT_TRUE(check().ok());
  manifest_.kind = ModuleKind::kLibrary;
  // A group that others are in, if this user may give it away.
  constexpr gid_t kNobodys = 65534;
  if (chown(module().c_str(), geteuid(), kNobodys) == 0) {
    EXPECT_EQ(check().code(), Code::kPermissionDenied);
  }
  chmod(module().c_str(), 0755);
  chmod(dir_.c_str(), 0777);
  EXPECT_EQ(check().code(), Code::kPermissionDenied);
}

TEST_F(Trust, WhatIsAboveManyModulesIsLookedAtOnceAndByTheNextLookAnew) {
  const std::string other = dir_ + "/bio";
  fs::create_directories(other);
  KnownPlaces known;
  ASSERT_TRUE(check_not_everybodys(module(), &known).ok());
  const size_t above = known.size();
  EXPECT_GE(above, 2u);
  ASSERT_TRUE(check_not_everybodys(other, &known).ok());
  EXPECT_EQ(known.size(), above);

  const auto trust = *ModuleTrust::open({{}, keys(), false, {}});
  const auto before = trust->check_together();
  ASSERT_TRUE(before(module(), manifest_).ok());
  chmod(dir_.c_str(), 0777);
  EXPECT_EQ(trust->check_together()(other, manifest_).code(), Code::kPermissionDenied);
  EXPECT_EQ(trust->check(other, manifest_).code(), Code::kPermissionDenied);
  chmod(dir_.c_str(), 0700);
  // Of the directory itself nothing is remembered.
  chmod(module().c_str(), 0777);
  EXPECT_EQ(before(module(), manifest_).code(), Code::kPermissionDenied);
}

TEST_F(Trust, OnlyUnderTheDirectoriesThatAreNamed) {
  fs::create_directories(dir_ + "/leg");
  roots_ = {dir_ + "/leg", dir_ + "/nowhere"};
  refused("not under a directory of trust.roots");
  fs::create_directory_symlink(module(), dir_ + "/leg/al");
  EXPECT_THAT(check_at(dir_ + "/leg/al").message(), HasSubstr("not under"));
  roots_.push_back(module());
  refused("not under");  // the directory itself is not under it
  roots_.push_back(dir_);
  EXPECT_TRUE(check().ok());
}

TEST_F(Trust, KeysAreReadAgain) {
  const auto trust = ModuleTrust::open({{}, keys(), true, {}});
  ASSERT_TRUE(trust.ok());
  fs::remove(keys() + "/owner.pub");
  EXPECT_TRUE((*trust)->check(module(), manifest_).ok());
  ASSERT_TRUE((*trust)->reload().ok());
  EXPECT_FALSE((*trust)->check(module(), manifest_).ok());
  write(keys() + "/broken.pub", "no key");
  EXPECT_FALSE((*trust)->reload().ok());
}

}  // namespace
}  // namespace chimera
