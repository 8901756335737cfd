// Added tokens: contents that are found in the text before the model sees it, such as <|im_end|>.
//
// Two passes: tokens with normalized = false are found in the text as it came, the others in the
// normalized text between them. In each pass the leftmost match counts, the longest at equal
// places.
//
// Thread safety: immutable after from_json.
#pragma once

#include <array>
#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"
#include "text/span.h"
#include "text/tokenizer/model/json.h"
#include "text/tokenizer/model/vocabulary.h"
#include "text/tokenizer/stages/normalizer.h"

namespace chimera::tokenizer {

/// A run of the text between added tokens, or one of them.
struct Segment {
  std::string_view text;
  int32_t id;     // kNoToken for plain text
  bool at_start;  // begins at the start of the searched text
};

/// Whether [begin, end) shares a byte with one of `spans` (sorted, apart).
bool touches(std::span<const TextSpan> spans, size_t begin, size_t end);

class AddedTokens {
 public:
  enum class Pass { kRaw = 0, kNormalized = 1 };

  /// Reads "added_tokens" (null counts as none) and enters them into `vocabulary`. What a token
  /// matches, and what the decoder later reads for it, is its normalized content when it has
  /// normalized = true.
  static Result<AddedTokens> from_json(const Json& json, const Normalizer& normalizer,
                                       Vocabulary& vocabulary);

  /// Replaces `out` by the segments of `text`. Special tokens are looked for only when
  /// `match_special`, and only where they do not touch a range of `plain` (sorted, apart).
  void split(std::string_view text, Pass pass, bool match_special, std::span<const TextSpan> plain,
             std::vector<Segment>& out) const;

 private:
  struct Token {
    std::string pattern;
    int32_t id = 0;
    bool special = false;
    bool single_word = false;
    bool strip_left = false;
    bool strip_right = false;
  };
  // Patterns in byte order, so that those sharing a prefix are neighbours and one more byte of
  // text narrows the range by binary search.
  struct Matcher {
    std::vector<Token> tokens;
    std::array<bool, 256> first_byte{};

    void seal();
    const Token* longest_at(std::string_view text, size_t pos) const;
  };

  static bool stands_alone(std::string_view text, size_t begin, size_t end);

  std::array<std::array<Matcher, 2>, 2> matchers_;  // [pass][match_special]
};

}  // namespace chimera::tokenizer
