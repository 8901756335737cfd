// Memory files that nobody can change any more.
#include "base/io/sealed_file.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/mman.h>
#include <unistd.h>

#include <chrono>
#include <cstring>
#include <span>
#include <string>
#include <thread>

namespace chimera {
namespace {

constexpr size_t kSize = 4096;

/// A memory file with a writable mapping, which keeps the kernel from sealing it against writing.
struct WrittenFile {
  WrittenFile() : fd(::memfd_create("chimera-test", MFD_CLOEXEC | MFD_ALLOW_SEALING)) {
    EXPECT_EQ(::ftruncate(fd, kSize), 0);
    mapping = ::mmap(nullptr, kSize, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
    EXPECT_NE(mapping, MAP_FAILED);
  }
  ~WrittenFile() {
    unmap();
    ::close(fd);
  }
  void unmap() {
    if (mapping != nullptr) ::munmap(mapping, kSize);
    mapping = nullptr;
  }
  const int fd;
  void* mapping;
};

TEST(SealedFile, HoldsItsBytesAndRefusesWrites) {
  const std::string text = "expert";
  const auto file = SealedFile::create("chimera-test", std::as_bytes(std::span(text)));
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  EXPECT_EQ(file->size(), text.size());
  char found[6];
  ASSERT_EQ(::pread(file->fd(), found, sizeof(found), 0), 6);
  EXPECT_EQ(std::memcmp(found, text.data(), sizeof(found)), 0);
  EXPECT_EQ(::pwrite(file->fd(), "x", 1, 0), -1);
  EXPECT_NE(::ftruncate(file->fd(), 0), 0);
}

TEST(SealedFile, WaitsForAWriterThatGoesAway) {
  WrittenFile file;
  ASSERT_NE(::fcntl(file.fd, F_ADD_SEALS, F_SEAL_WRITE), 0) << "expected the kernel to refuse";
  std::jthread writer([&] {
    std::this_thread::sleep_for(std::chrono::milliseconds(10));
    file.unmap();
  });
  const Status status = seal_memory_file(file.fd, "sealing");
  EXPECT_TRUE(status.ok()) << status.to_string();
  EXPECT_EQ(::pwrite(file.fd, "x", 1, 0), -1);
}

TEST(SealedFile, GivesUpOnAWriterThatStays) {
  const WrittenFile file;
  const Status status = seal_memory_file(file.fd, "sealing a test");
  EXPECT_EQ(status.code(), Code::kUnavailable) << status.to_string();
  EXPECT_NE(status.message().find("sealing a test"), std::string::npos) << status.to_string();
}

TEST(SealedFile, AdoptsOnlyWhatIsSealed) {
  const int fd = ::memfd_create("chimera-test", MFD_CLOEXEC | MFD_ALLOW_SEALING);
  EXPECT_EQ(SealedFile::adopt(fd, "open").status().code(), Code::kDataCorrupt);
}

}  // namespace
}  // namespace chimera
