// Charsmap: the "precompiled_charsmap" of SentencePiece, a table of replacements that stands for a
// normalization such as nmt_nfkc.
//
// The bytes are: u32 size of the trie in bytes, the trie as a double array of u32 units (Darts),
// then the replacements, each ended by NUL. A value in the trie is an offset into them.
//
// Thread safety: immutable after from_base64.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "base/status.h"

namespace chimera::tokenizer {

class Charsmap {
 public:
  /// data_corrupt when the text is no base64 or its parts do not fit together.
  static Result<Charsmap> from_base64(std::string_view text);

  /// Rewrites `text` (valid UTF-8): a grapheme cluster of fewer than six bytes as a whole where
  /// the table has it, else character by character. As in the reference, the shortest key that
  /// the cluster begins with decides, and the rest of the cluster goes with it. data_corrupt when
  /// the table leads outside itself; resource_exhausted when the text exceeds `limit` bytes.
  Status apply(std::string& text, size_t limit) const;

 private:
  enum class Found { kNo, kYes, kBroken };
  Found replacement(std::string_view part, std::string_view& out) const;
  Found rewrite(std::string_view cluster, std::string& out) const;

  std::vector<uint32_t> units_;
  std::string replacements_;
};

}  // namespace chimera::tokenizer
