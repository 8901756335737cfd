#include "daemon/security/audit_log.h"

#include <gtest/gtest.h>
#include <stdlib.h>
#include <sys/stat.h>

#include <algorithm>
#include <filesystem>
#include <fstream>
#include <future>
#include <thread>

namespace chimera {
namespace {

class Audit : public testing::Test {
 protected:
  void SetUp() override {
    dir_ = std::filesystem::temp_directory_path() / "chimera-audit-XXXXXX";
    ASSERT_NE(mkdtemp(dir_.data()), nullptr);
  }
  void TearDown() override { std::filesystem::remove_all(dir_); }
  std::unique_ptr<AuditLog> open(uint64_t max_bytes = 1 << 20, size_t max_files = 3) {
    auto log = AuditLog::open({dir_ + "/audit", max_bytes, max_files});
    EXPECT_TRUE(log.ok()) << log.status().to_string();
    return std::move(*log);
  }
  static AuditEntry entry(const std::string& call, int64_t unix_s = 1'800'000'000) {
    AuditEntry out;
    out.time = std::chrono::system_clock::from_time_t(unix_s);
    out.principal = "ops";
    out.call = call;
    out.arguments = {{"name", "legal\n{"}};
    out.result = "ok";
    out.epoch_after = 2;
    return out;
  }
  std::string dir_;
};

TEST_F(Audit, WhatIsWrittenIsReadAgain) {
  open()->append(entry("load"), [] {});
  auto log = open();  // the next daemon
  log->append(entry("unload"));
  const auto read = log->read(0, 10);
  ASSERT_TRUE(read.ok());
  ASSERT_EQ(read->size(), 2u);
  EXPECT_EQ((*read)[0].value("call", ""), "load");
  EXPECT_EQ((*read)[1].value("call", ""), "unload");
  EXPECT_EQ((*read)[0].value("time", ""), "2027-01-15T08:00:00.000Z");
  EXPECT_EQ((*read)[0]["arguments"].value("name", ""), "legal\n{");
  struct stat info {};
  ASSERT_EQ(stat((dir_ + "/audit").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777u, 0700u);
  ASSERT_EQ(stat((dir_ + "/audit/audit.jsonl").c_str(), &info), 0);
  EXPECT_EQ(info.st_mode & 07777u, 0600u);
}

TEST_F(Audit, SinceAndLimit) {
  auto log = open();
  for (int i = 0; i < 10; ++i) log->append(entry(std::to_string(i), 1000 + i));
  EXPECT_EQ(log->read(1007, 100)->size(), 3u);
  const auto newest = log->read(0, 2);
  ASSERT_EQ(newest->size(), 2u);
  EXPECT_EQ((*newest)[0].value("call", ""), "8");
}

TEST_F(Audit, FullFilesAreKeptUpToTheirNumber) {
  auto log = open(/*max_bytes=*/1000, /*max_files=*/3);
  for (int i = 0; i < 200; ++i) log->append(entry(std::to_string(i), 1000 + i));
  size_t files = 0;
  for (const auto& file : std::filesystem::directory_iterator(dir_ + "/audit")) {
    EXPECT_LE(file.file_size(), 1000u);
    ++files;
  }
  EXPECT_EQ(files, 4u);
  const auto read = log->read(0, 1000);
  ASSERT_TRUE(read.ok());
  ASSERT_GT(read->size(), 8u);
  // No gap up to the newest.
  for (size_t i = 0; i < read->size(); ++i) {
    EXPECT_EQ((*read)[i].value("call", ""), std::to_string(200 - read->size() + i));
  }
}

TEST_F(Audit, ABrokenLineIsLeftOut) {
  auto log = open();
  log->append(entry("one"));
  std::ofstream(dir_ + "/audit/audit.jsonl", std::ios::app) << "{\"call\": \"ha\n";
  log->append(entry("two"));
  const auto read = log->read(0, 10);
  ASSERT_TRUE(read.ok());
  EXPECT_EQ(read->size(), 2u);
}

TEST_F(Audit, ManyAtOnce) {
  auto log = open(/*max_bytes=*/20'000, /*max_files=*/100);
  std::vector<std::thread> threads;
  for (int t = 0; t < 4; ++t) {
    threads.emplace_back([&] {
      for (int i = 0; i < 100; ++i) {
        if (i % 20 == 0) {
          log->append(entry("x"), [] {});
        } else {
          log->append(entry("x"));
        }
      }
    });
  }
  for (std::thread& thread : threads) thread.join();
  EXPECT_EQ(log->read(0, 1000)->size(), 400u);
}

TEST_F(Audit, WhoWaitsForTheDiskWaitsForItTogether) {
  auto log = open();
  std::promise<void> begun, release;
  std::vector<int> called;
  log->append(entry("first"), [&, go = release.get_future().share()] {
    begun.set_value();
    go.wait();
  });
  begun.get_future().wait();
  ASSERT_EQ(log->syncs(), 1u);
  for (int i = 0; i < 100; ++i) log->append(entry("more"), [&called, i] { called.push_back(i); });
  release.set_value();
  std::promise<void> last;
  log->append(entry("last"), [&] { last.set_value(); });
  last.get_future().wait();
  EXPECT_LE(log->syncs(), 3u);
  ASSERT_EQ(called.size(), 100u);
  EXPECT_TRUE(std::is_sorted(called.begin(), called.end()));
  log->append(entry("at the end"), [&] { called.push_back(100); });
  log.reset();
  EXPECT_EQ(called.size(), 101u) << "nobody is left waiting";
}

}  // namespace
}  // namespace chimera
