#include "backbone/checkpoint/block_shape.h"

#include <gtest/gtest.h>

#include <string>

namespace chimera {
namespace {

TEST(BlockSize, IsReadFromTheConfiguration) {
  const auto size = [](const char* json) { return weight_block_size(json, "config.json"); };
  EXPECT_EQ(*size("{}"), (BlockShape{128, 128}));
  EXPECT_EQ(*size("no json"), (BlockShape{128, 128}));
  EXPECT_EQ(*size(R"({"quantization_config": {"weight_block_size": [64, 32]}})"),
            (BlockShape{64, 32}));
  EXPECT_EQ(*size(R"({"text_config": {"quantization_config": {"weight_block_size": [1, 2]}}})"),
            (BlockShape{1, 2}));
  for (const char* bad : {"[0, 1]", "[1]", "[1, 2, 3]", "\"128\"", "[1.5, 2]", "[1, 2000000]"}) {
    const std::string json =
        std::string(R"({"quantization_config": {"weight_block_size": )") + bad + "}}";
    EXPECT_EQ(size(json.c_str()).status().code(), Code::kInvalidArgument) << bad;
  }
}

}  // namespace
}  // namespace chimera
