#include "base/suggest.h"

#include <gtest/gtest.h>

#include <string>

namespace chimera {
namespace {

constexpr std::string_view kKeys[] = {"max_tokens", "temperature", "top_k", "top_p", "path"};

TEST(Suggest, FindsWhatASlipMeant) {
  EXPECT_EQ(nearest("max_token", kKeys), "max_tokens");
  EXPECT_EQ(nearest("tempreature", kKeys), "temperature");
  EXPECT_EQ(nearest("topk", kKeys), "top_k");
  EXPECT_EQ(nearest("paht", kKeys), "path");
}

TEST(Suggest, SaysNothingOfAnotherWord) {
  EXPECT_EQ(nearest("banana", kKeys), "");
  EXPECT_EQ(nearest("", kKeys), "");
  EXPECT_EQ(nearest("x", std::span<const std::string_view>()), "");
  EXPECT_EQ(nearest(std::string(1000, 'x'), kKeys), "");
}

}  // namespace
}  // namespace chimera
