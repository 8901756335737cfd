// Texts to score, piece by piece: plain files, standard input, and document collections.
//
// Thread safety: a source by one thread; open_text from any.
#pragma once

#include <cstdint>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>
#include <variant>

#include "commands.h"

namespace chimera::cli {

/// Pieces are whole UTF-8; the source ends after `limit_bytes` of text.
class TextSource {
 public:
  virtual ~TextSource() = default;
  /// The next piece, nullopt at the end. A piece of a plain file goes on where the last one ended.
  virtual std::variant<std::optional<std::string>, Error> next() = 0;
  /// How much of the source has been read, 0..1; 0 when nobody knows.
  virtual double fraction() const = 0;
};

/// `.jsonl` and `.jsonl.zst`: one document per line, its "text". Anything else is text itself,
/// "-" standard input.
std::variant<std::unique_ptr<TextSource>, Error> open_text(const std::string& file,
                                                           uint64_t limit_bytes);

}  // namespace chimera::cli
