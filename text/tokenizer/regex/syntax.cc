#include "text/tokenizer/regex/syntax.h"

#include <fmt/format.h>

#include <array>

#include "text/tokenizer/regex/fold.h"
#include "text/tokenizer/regex/names.h"
#include "text/tokenizer/regex/translator.h"

namespace chimera::tokenizer {
namespace {

// The longest expression in use (o200k) has about 600 bytes.
constexpr size_t kMaxPattern = 64 * 1024;

}  // namespace

void RegexTranslator::alternatives(int depth) {
  if (depth > kMaxDepth) return malformed("groups nested deeper than 64");
  int open_flag_groups = 0;
  const bool ignore_case_outside = ignore_case_;
  atom_.reset();
  literal_.reset();
  while (!failed() && !at_end() && peek() != ')') {
    if (out_.size() > kMaxTranslated) return malformed("expression too large");
    switch (peek()) {
      case '|':
        ++pos_;
        out_ += '|';
        atom_.reset();
        literal_.reset();
        break;
      case '(':
        if (looking_at("(?") && (is_letter_or_digit(peek(2)) || peek(2) == '-')) {
          inline_flags(depth, open_flag_groups);
        } else {
          group(depth);
        }
        break;
      case '[':
        ++pos_;
        atom(bracket_class(depth));
        break;
      case '\\':
        escape();
        break;
      case '*':
      case '+':
      case '?':
      case '{':
        quantifier();
        break;
      default: {
        const DecodedChar c = decode_char(source_, pos_);
        literal(c.code_point);
        pos_ += c.length;
      }
    }
  }
  out_.append(static_cast<size_t>(open_flag_groups), ')');
  ignore_case_ = ignore_case_outside;
  literal_.reset();
}

// A character as it stands, which includes '.', '^' and '$' with their meaning.
void RegexTranslator::literal(uint32_t c) {
  refuse_folding(c);
  if (ignore_case_ && literal_ && is_folding_of_one(*literal_, c)) {
    std::string both;
    append_char(*literal_, both);
    append_char(c, both);
    return unsupported(fmt::format("\"{}\" with case ignored", both));
  }
  std::string text;
  append_char(c, text);
  atom(text);
  literal_ = c;
}

// Oniguruma matches these characters with sequences, too, when case is ignored.
void RegexTranslator::refuse_folding(uint32_t c) {
  if (!ignore_case_ || !folds_to_several(c)) return;
  std::string text;
  append_char(c, text);
  unsupported(fmt::format("\"{}\" with case ignored", text));
}

void RegexTranslator::group(int depth) {
  static constexpr std::array<std::string_view, 7> kOpeners = {
      "(?:", "(?=", "(?!", "(?<=", "(?<!", "(?>", "("};
  const size_t start = out_.size();
  if (accept("(?#")) {
    while (!at_end() && peek() != ')') ++pos_;
    if (!accept(")")) malformed("comment without ')'");
    return;
  }
  if (looking_at("(?<") && is_letter_or_digit(peek(3))) {
    const size_t close = source_.find('>', pos_);
    if (close == std::string_view::npos) return malformed("group name without '>'");
    out_ += source_.substr(pos_, close + 1 - pos_);
    pos_ = close + 1;
  } else {
    std::string_view opener;
    for (const std::string_view o : kOpeners) {
      if (opener.empty() && looking_at(o)) opener = o;
    }
    if (opener == "(" && (peek(1) == '?' || peek(1) == '*')) {
      return unsupported(fmt::format("\"{}\"", source_.substr(pos_, 4)));
    }
    pos_ += opener.size();
    out_ += opener;
  }
  alternatives(depth + 1);
  if (failed()) return;
  if (!accept(")")) return malformed("group without ')'");
  out_ += ')';
  atom_ = start;
}

// (?i) holds to the end of the enclosing group, across '|', so it opens a group that is closed
// there. Oniguruma's m is "dot matches newline", which PCRE2 calls s.
void RegexTranslator::inline_flags(int depth, int& open_flag_groups) {
  const size_t start = out_.size();
  pos_ += 2;
  std::string flags;
  while (peek() == 'i' || peek() == 'm' || peek() == 'x' || peek() == '-') {
    flags += peek() == 'm' ? 's' : peek();
    ++pos_;
  }
  const bool ignore_case_outside = ignore_case_;
  const size_t minus = flags.find('-');
  if (flags.find('i', minus == std::string::npos ? 0 : minus) != std::string::npos) {
    ignore_case_ = minus == std::string::npos;
  } else if (flags.find('i') != std::string::npos) {
    ignore_case_ = true;
  }
  if (accept(")")) {
    out_ += "(?" + flags + ":";
    ++open_flag_groups;
    if (open_flag_groups > kMaxDepth) return malformed("too many inline flags");
    atom_.reset();
    return;
  }
  if (!accept(":")) return unsupported(fmt::format("flag '{}'", peek()));
  out_ += "(?" + flags + ":";
  alternatives(depth + 1);
  ignore_case_ = ignore_case_outside;
  if (failed()) return;
  if (!accept(")")) return malformed("group without ')'");
  out_ += ')';
  atom_ = start;
}

void RegexTranslator::quantifier() {
  if (peek() == '{') {
    if (interval()) return;
    ++pos_;
    atom("\\{");
    return;
  }
  if (!atom_) return malformed("quantifier without a target");
  literal_.reset();
  out_ += peek();
  ++pos_;
  if (peek() == '?' || peek() == '+') {
    out_ += peek();
    ++pos_;
  }
}

// {n}, {n,}, {n,m}, {,m}. A '+' after it repeats the whole (it is not possessive as in PCRE2), and
// so does '?' after {n}.
bool RegexTranslator::interval() {
  size_t p = pos_ + 1;
  const auto number = [&] {
    std::string digits;
    while (p < source_.size() && source_[p] >= '0' && source_[p] <= '9') digits += source_[p++];
    return digits;
  };
  const std::string low = number();
  const bool comma = p < source_.size() && source_[p] == ',';
  if (comma) ++p;
  const std::string high = comma ? number() : "";
  if (p >= source_.size() || source_[p] != '}' || (low.empty() && high.empty())) return false;
  if (!atom_) {
    malformed("quantifier without a target");
    return true;
  }
  pos_ = p + 1;
  out_ += '{' + (low.empty() ? "0" : low) + (comma ? "," + high : "") + '}';
  if (peek() == '+' || (peek() == '?' && !comma)) {
    wrap_atom();
  } else if (peek() == '?') {
    out_ += '?';
    ++pos_;
  }
  return true;
}

void RegexTranslator::escape() {
  const size_t start = pos_;
  const bool word_set = peek(1) == 'w' || peek(1) == 'W';
  if (std::optional<CharSet> set = set_escape()) {
    if (word_set) set->set += kWordInLatin1;
    return atom(set->expression());
  }
  if (failed()) return;
  if (std::optional<uint32_t> c = char_escape()) return atom(fmt::format("\\x{{{:x}}}", *c));
  if (failed()) return;
  pos_ = start + 1;
  const char c = peek();
  const std::string word = fmt::format("[{}{}]", by_tables(kWord, tables_), kWordInLatin1);
  switch (c) {
    case 'b':
      ++pos_;
      return atom(fmt::format("(?:(?<={0})(?!{0})|(?<!{0})(?={0}))", word));
    case 'B':
      ++pos_;
      return atom(fmt::format("(?:(?<={0})(?={0})|(?<!{0})(?!{0}))", word));
    case 'O':
      ++pos_;
      return atom(fmt::format("[{}]", kAny));
    case 'N':
      ++pos_;
      return atom("[^\\n]");
    case 'A':
    case 'Z':
    case 'z':
    case 'R':
      ++pos_;
      return atom(std::string("\\") + c);
    default:
      break;
  }
  if (c >= '1' && c <= '9') {
    ++pos_;
    return atom(fmt::format("\\g{{{}}}", c));
  }
  unsupported(fmt::format("\"\\{}\"", at_end() ? '\\' : c));
}

Result<std::string> translate_oniguruma(std::string_view pattern, Tables tables) {
  if (pattern.size() > kMaxPattern) {
    return Status(Code::kDataCorrupt, fmt::format("regular expression of {} bytes; the limit is {}",
                                                  pattern.size(), kMaxPattern));
  }
  if (const auto bad = find_invalid_utf8(pattern)) {
    return Status(Code::kDataCorrupt,
                  fmt::format("regular expression is not UTF-8 at byte {}", *bad));
  }
  return RegexTranslator(pattern, tables).run();
}

}  // namespace chimera::tokenizer
