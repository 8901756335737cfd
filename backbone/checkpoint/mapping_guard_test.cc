// A checkpoint that shrinks under its mapping: the process lives and knows.
#include "base/io/mapping_guard.h"

#include <fcntl.h>
#include <gtest/gtest.h>
#include <sys/stat.h>
#include <unistd.h>

#include <csignal>

#include "backbone/checkpoint/safetensors_image.h"
#include "base/io/mapped_changes.h"

namespace chimera {
namespace {

using MappingGuardTest = SafetensorsTest;

// The order matters: damage is remembered for the life of the process.
TEST_F(MappingGuardTest, AnIntactMappingIsNoDamage) {
  put(image("{" + entry("w", "U8", "[100000]", "[0,100000]") + "}", std::string(100000, 'x')));
  const auto file = SafetensorsFile::open(path_, Residency::kMapped);
  ASSERT_TRUE(file.ok()) << file.status().to_string();
  EXPECT_TRUE(file->mapped());
  const auto bytes = file->find("w")->bytes;
  EXPECT_EQ(bytes[99999], std::byte{'x'});
  EXPECT_FALSE(mapping_damaged());
  EXPECT_EQ(damaged_mapping(), "");
}

TEST_F(MappingGuardTest, FilesThatAreWrittenToAreTold) {
  const std::string bytes =
      image("{" + entry("w", "U8", "[100000]", "[0,100000]") + "}", std::string(100000, 'x'));
  const auto overwrite = [&](bool put_time_back) {
    struct stat before {};
    ASSERT_EQ(::stat(path_.c_str(), &before), 0);
    const int fd = ::open(path_.c_str(), O_WRONLY);
    ASSERT_GE(fd, 0);
    const std::string other(60000, 'y');
    ASSERT_EQ(::pwrite(fd, other.data(), other.size(), 20000), 60000);
    // The clock of files ticks in milliseconds: it may not have moved on by itself.
    timespec times[2] = {before.st_atim, before.st_mtim};
    if (!put_time_back) ++times[1].tv_sec;
    ASSERT_EQ(::futimens(fd, times), 0);
    ::close(fd);
  };
  for (const bool put_time_back : {false, true}) {
    put(bytes);
    const auto file = SafetensorsFile::open(path_, Residency::kMapped);
    ASSERT_TRUE(file.ok());
    ASSERT_EQ(::chmod(path_.c_str(), 0600), 0);
    EXPECT_TRUE(changed_mappings_by_content().empty());
    overwrite(put_time_back);
    EXPECT_EQ(changed_mappings().size(), put_time_back ? 0u : 1u);
    EXPECT_EQ(changed_mappings_by_content(), std::vector<std::string>{path_});
    EXPECT_EQ(changed_mappings().size(), 1u);  // once found, it stays
  }
  EXPECT_TRUE(changed_mappings().empty());  // nobody has it mapped any more
}

TEST_F(MappingGuardTest, AFileThatIsReplacedIsNotChanged) {
  const std::string bytes = image("{" + entry("w", "U8", "[8]", "[0,8]") + "}", "xxxxxxxx");
  put(bytes);
  const auto file = SafetensorsFile::open(path_, Residency::kMapped);
  ASSERT_TRUE(file.ok());
  const std::string mapped = path_ + ".mapped";
  ASSERT_EQ(::rename(path_.c_str(), mapped.c_str()), 0);
  put(bytes + "longer");
  EXPECT_TRUE(changed_mappings_by_content().empty());
  ::unlink(mapped.c_str());
}

TEST_F(MappingGuardTest, AShrunkFileReadsAsZerosAndIsReported) {
  put(image("{" + entry("w", "U8", "[100000]", "[0,100000]") + "}", std::string(100000, 'x')));
  const auto file = SafetensorsFile::open(path_, Residency::kMapped);
  ASSERT_TRUE(file.ok());
  const auto bytes = file->find("w")->bytes;
  ASSERT_EQ(::truncate(path_.c_str(), 8192), 0);
  EXPECT_EQ(bytes[99999], std::byte{0});  // SIGBUS, were it not for the guard
  EXPECT_EQ(bytes[50000], std::byte{0});
  EXPECT_EQ(bytes[0], std::byte{'x'});
  EXPECT_TRUE(mapping_damaged());
  EXPECT_EQ(damaged_mapping(), path_);
}

TEST_F(MappingGuardTest, OtherBusErrorsStillEndTheProcess) {
  // A sanitizer reports the signal and exits.
  const auto ended = [](int status) {
    return WIFSIGNALED(status) ? WTERMSIG(status) == SIGBUS : WEXITSTATUS(status) != 0;
  };
  EXPECT_EXIT(std::raise(SIGBUS), ended, "");
}

TEST_F(MappingGuardTest, AutomaticCopiesWhatIsSmall) {
  put(image("{" + entry("w", "U8", "[4]", "[0,4]") + "}", "abcd"));
  const auto file = SafetensorsFile::open(path_, Residency::kAutomatic);
  ASSERT_TRUE(file.ok());
  EXPECT_FALSE(file->mapped());
}

}  // namespace
}  // namespace chimera
