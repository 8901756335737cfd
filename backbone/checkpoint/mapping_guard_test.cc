// A checkpoint that shrinks under its mapping: the process lives and knows.
#include "base/io/mapping_guard.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <csignal>

#include "backbone/checkpoint/safetensors_image.h"

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
