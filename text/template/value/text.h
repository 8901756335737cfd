// Strings of the template interpreter: UTF-8 that remembers which bytes a client supplied.
//
// A chat template mixes its own control tokens ("<|im_end|>") with text of users. Every string
// operation carries the marks along, so that the tokenizer can look for control tokens in the
// template's own bytes only and nobody smuggles them in through a message.
//
// Positions are bytes unless a name says "character"; Python counts characters (code points).
//
// Thread safety: values; distinct objects are independent.
#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "text/span.h"

namespace chimera::jinja {

class Text {
 public:
  Text() = default;
  /// REQUIRES: valid UTF-8. `from_client` marks all of it.
  explicit Text(std::string bytes, bool from_client = false);

  const std::string& str() const { return bytes_; }
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  /// Marked ranges, sorted and apart.
  const std::vector<TextSpan>& marks() const { return marks_; }

  void append(std::string_view unmarked) { bytes_ += unmarked; }
  void append(const Text& other) { append(other, 0, other.size()); }
  /// The bytes [begin, end) of `other`.
  void append(const Text& other, size_t begin, size_t end);
  /// `bytes` in place of the bytes [begin, end) of `other`: marked when any of those was.
  void append_as(std::string_view bytes, const Text& other, size_t begin, size_t end);
  Text slice(size_t begin, size_t end) const;

  /// Result of `|safe` and `|escape`: `+` then escapes the other operand, as MarkupSafe does.
  bool markup = false;

 private:
  bool any_marked(size_t begin, size_t end) const;
  void mark(size_t begin, size_t end);

  std::string bytes_;
  std::vector<TextSpan> marks_;
};

/// Number of characters.
size_t character_count(std::string_view text);
/// Byte offset of character `index`, at most size().
size_t character_offset(std::string_view text, size_t index);

bool is_space(uint32_t c);      // what str.isspace and str.strip take for blank
bool is_line_end(uint32_t c);   // where str.splitlines splits
bool is_printable(uint32_t c);  // what repr shows as it is
bool is_alpha(uint32_t c);      // categories L*
bool is_decimal(uint32_t c);    // category Nd
bool is_upper(uint32_t c);
bool is_lower(uint32_t c);
bool is_title(uint32_t c);

/// Bytes without the blank characters at the chosen ends: the range that remains.
TextSpan stripped(std::string_view text, bool left, bool right);
/// The same for any of the characters in `chars`.
TextSpan stripped_of(std::string_view text, std::string_view chars, bool left, bool right);

enum class Case { kUpper, kLower, kTitle, kCapitalize, kSwap };
/// Python's case methods; full mappings only for the common one-to-many letters (ß, ligatures).
Text with_case(const Text& text, Case what);

}  // namespace chimera::jinja
