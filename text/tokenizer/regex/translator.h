// The translator behind translate_oniguruma: a recursive descent over the expression that writes
// its PCRE2 form as it goes. Groups, quantifiers and escapes are in syntax.cc,
// bracket classes and character sets in class.cc.
//
// Thread safety: one object per translation.
#pragma once

#include <fmt/format.h>

#include <cstddef>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <utility>
#include <vector>

#include "base/status.h"
#include "text/tokenizer/regex/names.h"
#include "text/unicode.h"

namespace chimera::tokenizer {

inline bool is_letter_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

class RegexTranslator {
 public:
  RegexTranslator(std::string_view source, Tables tables) : source_(source), tables_(tables) {}

  Result<std::string> run() {
    alternatives(0);
    if (error_.ok() && !at_end()) malformed("unmatched ')'");
    if (failed()) return Status(error_.code(), lossy(error_.message()), error_.hint());
    return std::move(out_);
  }

 private:
  static constexpr int kMaxDepth = 64;
  static constexpr size_t kMaxTranslated = 1024 * 1024;

  bool at_end() const { return pos_ >= source_.size(); }
  char peek(size_t ahead = 0) const {
    return pos_ + ahead < source_.size() ? source_[pos_ + ahead] : '\0';
  }
  bool looking_at(std::string_view text) const { return source_.substr(pos_, text.size()) == text; }
  bool accept(std::string_view text) {
    if (!looking_at(text)) return false;
    pos_ += text.size();
    return true;
  }
  bool failed() const { return !error_.ok(); }
  void malformed(std::string_view what) {
    if (failed()) return;
    error_ =
        Status(Code::kDataCorrupt, fmt::format("regular expression: {} at byte {}", what, pos_));
  }
  void unsupported(std::string_view construct) {
    if (failed()) return;
    error_ = Status(
        Code::kUnimplemented,
        fmt::format("regular expression construct {} at byte {} is not supported", construct, pos_),
        "supported: alternatives, groups, look-around, greedy, lazy and possessive "
        "quantifiers, classes with && and nesting, \\p{...}, (?imx)");
  }

  // Up to the closing parenthesis of this group or the end.
  void alternatives(int depth);
  void group(int depth);
  void inline_flags(int depth, int& open_flag_groups);
  void escape();
  void quantifier();
  bool interval();
  void atom(std::string_view text) {
    atom_ = out_.size();
    out_ += text;
    literal_.reset();
  }
  void literal(uint32_t c);
  void refuse_folding(uint32_t c);
  void wrap_atom() {
    out_.insert(*atom_, "(?:");
    out_ += ')';
  }

  std::string bracket_class(int depth);
  std::string class_union(int depth, bool& more);
  void class_item(std::string& items, std::vector<std::string>& parts);
  void posix_bracket(std::string& items, std::vector<std::string>& parts);
  std::optional<uint32_t> class_char();
  std::optional<CharSet> set_escape();
  CharSet property(bool negated);
  CharSet property_named(const std::string& name, bool negated);
  std::optional<uint32_t> char_escape();
  std::optional<uint32_t> hex_digits(size_t min, size_t max);

  std::string_view source_;
  const Tables tables_;
  size_t pos_ = 0;
  std::string out_;
  bool ignore_case_ = false;
  std::optional<uint32_t> literal_;  // the character just written, while nothing followed it
  std::optional<size_t> atom_;       // where in out_ the expression a quantifier applies to begins
  Status error_;
};

}  // namespace chimera::tokenizer
