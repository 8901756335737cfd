// The "pre_tokenizer" of tokenizer.json: cuts normalized text into the pieces that the model
// encodes one by one.
//
// Thread safety: immutable after from_json.
#pragma once

#include <cstdint>
#include <deque>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <variant>
#include <vector>

#include "base/status.h"
#include "text/tokenizer/model/json.h"
#include "text/tokenizer/regex/regex.h"

namespace chimera::tokenizer {

/// Pieces of one text. A piece views the text or, where a step rewrote it, `rewritten`.
struct Pieces {
  std::vector<std::string_view> items;
  std::deque<std::string> rewritten;  // a deque: growing it moves no string
};

class PreTokenizer {
 public:
  /// `json` may be null (the whole text is one piece). unimplemented names an unknown component.
  static Result<PreTokenizer> from_json(const Json& json);

  /// Replaces `out` by the non-empty pieces of `text`. `at_start`: the text begins at the start of
  /// the whole input (Metaspace's "first" depends on it).
  Status split(std::string_view text, bool at_start, Pieces& out) const;

  /// The last step is ByteLevel: the model reads each byte of a piece as its byte-level
  /// character. Until then pieces stay plain text, which is shorter and matches the same.
  bool ends_with_bytes() const { return ends_with_bytes_; }
  /// Makes split() write byte-level characters instead, for models that read characters.
  void write_byte_characters() { ends_with_bytes_ = false; }

 private:
  enum class Behavior { kRemoved, kIsolated, kMergedWithPrevious, kMergedWithNext, kContiguous };
  class Collector;
  using Predicate = bool (*)(uint32_t);

  struct SplitRegex {
    Regex pattern;
    Behavior behavior;
    bool invert;
  };
  struct SplitChars {
    Predicate is_match;
    Behavior behavior;
  };
  struct SplitDelimiter {
    uint32_t delimiter;
  };
  struct FixedLength {
    size_t length;  // characters, at least 1
  };
  struct ByteLevel {
    bool add_prefix_space;
    std::optional<SplitRegex> words;  // with use_regex
  };
  struct Metaspace {
    uint32_t replacement;
    enum class Prepend { kAlways, kFirst, kNever } prepend;
    bool split;
  };
  using Step =
      std::variant<SplitRegex, SplitChars, SplitDelimiter, FixedLength, ByteLevel, Metaspace>;

  static Status read(const Json& json, const std::string& where, std::vector<Step>& steps);
  static Status read_split(Fields& fields, std::vector<Step>& steps);
  static Status read_byte_level(Fields& fields, std::vector<Step>& steps);
  static Status read_metaspace(Fields& fields, std::vector<Step>& steps);
  static Behavior read_behavior(Fields& fields, std::string_view fallback);

  struct Context {
    bool at_start;
    bool map_bytes;
    Pieces& pieces;
    bool drops_start = false;  // set by run: the pieces do not begin where the piece did
  };
  static bool start_dropped(const Pieces& pieces, size_t first, std::string_view whole);
  static Status run(const SplitRegex& step, std::string_view piece, Context& context);
  static Status run(const SplitChars& step, std::string_view piece, Context& context);
  static Status run(const SplitDelimiter& step, std::string_view piece, Context& context);
  static Status run(const FixedLength& step, std::string_view piece, Context& context);
  static Status run(const ByteLevel& step, std::string_view piece, Context& context);
  static Status run(const Metaspace& step, std::string_view piece, Context& context);

  std::vector<Step> steps_;
  bool ends_with_bytes_ = false;
};

}  // namespace chimera::tokenizer
