// Character sets of particular versions of Unicode, as tokenizers are defined with them. The
// libraries here have others (PCRE2 10.42: 14.0, utf8proc 2.8: 15.0), and each stage of Hugging
// Face's tokenizers has its own. unicode_data.cc is written by scripts/unicode_tables.mjs, which
// says what they were found from.
//
// Thread safety: constants.
#pragma once

#include <cstdint>
#include <span>
#include <string_view>

namespace chimera::tokenizer {

/// Of regular expressions, which decide how nearly every tokenizer in use splits text, and of the
/// words that added tokens keep apart from.
inline constexpr std::string_view kUnicodeVersion = "16.0.0";

struct CodePointRange {
  uint32_t first, last;
};
/// Sorted and apart.
using CodePointSet = std::span<const CodePointRange>;

/// A property that PCRE2's tables and those of kUnicodeVersion do not agree on.
struct ChangedProperty {
  enum class Change : uint8_t { kGrown, kShrunk, kBoth };
  std::string_view name;  // in lower case without separators: "lu", "alphabetic", "han"
  CodePointSet ranges;    // what was added, what was taken away, or (kBoth) all that has it now
  Change change;
};
std::span<const ChangedProperty> changed_properties();
/// Everything that one of them differs for.
CodePointSet changed_characters();

CodePointSet word_characters();          // \w of Rust's regular expressions (16.0)
CodePointSet numeric_characters();       // N (17.0)
CodePointSet punctuation_characters();   // P (8.0)
CodePointSet mark_characters();          // M (9.0)
CodePointSet unknown_to_normal_forms();  // unassigned in 9.0

struct CaseMapping {
  uint32_t from, to;
};
/// Lower case of letters (17.0) that utf8proc does not know; sorted.
std::span<const CaseMapping> new_lowercase();

}  // namespace chimera::tokenizer
