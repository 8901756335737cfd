// Regular expressions of tokenizer.json: written for Oniguruma, run by PCRE2 with JIT in Unicode
// mode. syntax.h translates where the two differ; what cannot be translated is
// refused, never approximated.
//
// Characters have the properties of kUnicodeVersion (unicode_data.h). An expression that depends on
// what PCRE2's older tables lack is compiled twice: by those tables, which is fast, and with the
// changes written out, for texts that have a changed character in them.
//
// Thread safety: a Regex is immutable; matching keeps its scratch per thread.
#pragma once

#include <cstddef>
#include <memory>
#include <string>
#include <string_view>

#include "base/status.h"

// PCRE2's own type names, declared here to keep its macros out of this header.
struct pcre2_real_code_8;

namespace chimera::tokenizer {

class Regex {
 public:
  /// `pattern` in Oniguruma's syntax. unimplemented when it needs what PCRE2 lacks, data_corrupt
  /// when it is malformed.
  static Result<Regex> compile(std::string_view pattern);
  /// Matches exactly `text`.
  static Result<Regex> literal(std::string_view text);

  /// Calls visit(begin, end) (byte offsets) for the successive non-overlapping matches in `text`,
  /// which must be valid UTF-8; an empty match right after the previous match does not count.
  /// resource_exhausted when the expression backtracks beyond its limit on this text.
  template <class Visit>
  Status for_each_match(std::string_view text, Visit&& visit) const;

 private:
  enum class Found { kMatch, kNone, kLimit };
  struct Program {
    std::shared_ptr<const pcre2_real_code_8> code;
    bool jit = false;  // compiled to machine code, which skips the checks of pcre2_match
  };

  explicit Regex(Program usual) : usual_(std::move(usual)) {}
  static Result<Program> build(std::string_view pcre2_pattern, bool is_literal);
  const Program& program_for(std::string_view text) const;
  static Found find(const Program& program, std::string_view text, size_t from, size_t& begin,
                    size_t& end);
  static Status limit_error(size_t offset, size_t text_size);

  Program usual_;
  Program changed_;  // without code when it is the same
};

template <class Visit>
Status Regex::for_each_match(std::string_view text, Visit&& visit) const {
  constexpr size_t kNoMatchYet = static_cast<size_t>(-1);
  const Program& program = program_for(text);
  size_t from = 0;
  size_t last_end = kNoMatchYet;
  while (from <= text.size()) {
    size_t begin = 0;
    size_t end = 0;
    const Found found = find(program, text, from, begin, end);
    if (found == Found::kNone) break;
    if (found == Found::kLimit) return limit_error(from, text.size());
    if (begin == end && end == last_end) {
      // Step over one character: continuation bytes never start one.
      do ++from;
      while (from < text.size() && (static_cast<unsigned char>(text[from]) & 0xC0u) == 0x80u);
      continue;
    }
    visit(begin, end);
    from = end;
    last_end = end;
  }
  return {};
}

}  // namespace chimera::tokenizer
