// What the tokenizer's tests share: a small tokenizer.json whose parts a test replaces.
//
// Thread safety: none; by the thread of its test.
#pragma once

#include <fmt/format.h>
#include <gtest/gtest.h>

#include <memory>
#include <string>
#include <string_view>
#include <vector>

#include "text/tokenizer/tokenizer.h"

namespace chimera {

// A tokenizer whose vocabulary is the printable ASCII characters and "▁" (ids 0..95), "ab" (96).
struct Sketch {
  std::string normalizer = "null";
  std::string pre_tokenizer = "null";
  std::string added_tokens = "[]";
  std::string post_processor = "null";
  std::string decoder = R"({"type":"Fuse"})";
  std::string model_extra;
  std::string merges = R"(["a b"])";

  std::string json() const {
    std::string vocab;
    for (int c = 0x20; c < 0x7F; ++c) {
      const std::string text = c == '"' || c == '\\' ? fmt::format("\\{}", static_cast<char>(c))
                                                     : std::string(1, static_cast<char>(c));
      vocab += fmt::format("\"{}\":{},", text, c - 0x20);
    }
    vocab += "\"\xE2\x96\x81\":95,\"ab\":96";
    return fmt::format(
        R"({{"version":"1.0","normalizer":{},"pre_tokenizer":{},"added_tokens":{},)"
        R"("post_processor":{},"decoder":{},"model":{{"type":"BPE",{}"vocab":{{{}}},"merges":{}}}}})",
        normalizer, pre_tokenizer, added_tokens, post_processor, decoder, model_extra, vocab,
        merges);
  }

  std::shared_ptr<const Tokenizer> build() const {
    auto parsed = Tokenizer::parse(json(), "sketch");
    EXPECT_TRUE(parsed.ok()) << parsed.status().to_string();
    return parsed.ok() ? *parsed : nullptr;
  }
};

inline std::string added(int id, std::string_view content, std::string_view flags = "") {
  return fmt::format(R"({{"id":{},"content":"{}","normalized":false{}}})", id, content, flags);
}

// The tokens of `text`, each by its own decoding.
inline std::vector<std::string> tokens(const Tokenizer& tokenizer, std::string_view text,
                                       bool match_special = true) {
  const auto ids = tokenizer.encode(text, {.match_special = match_special});
  EXPECT_TRUE(ids.ok()) << ids.status().to_string();
  std::vector<std::string> out;
  for (const int32_t id : ids.ok() ? *ids : std::vector<int32_t>()) {
    out.emplace_back(tokenizer.token_bytes(id));
  }
  return out;
}

}  // namespace chimera
