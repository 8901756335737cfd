#include "backbone/tokenizer_regex_syntax.h"

#include <fmt/format.h>

#include <array>
#include <optional>
#include <utility>
#include <vector>

#include "backbone/tokenizer_regex_names.h"
#include "backbone/tokenizer_text.h"

namespace chimera::tokenizer {
namespace {

// The longest expression in use (o200k) has about 600 bytes.
constexpr size_t kMaxPattern = 64 * 1024;
constexpr size_t kMaxTranslated = 1024 * 1024;
constexpr int kMaxDepth = 64;

bool is_letter_or_digit(char c) {
  return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

// Part of a bracket class: `set` is class content, `complement` says that it stands for every
// character outside it.
struct CharSet {
  std::string set;
  bool complement = false;

  std::string expression() const { return (complement ? "[^" : "[") + set + "]"; }
};

class Translator {
 public:
  explicit Translator(std::string_view source) : source_(source) {}

  Result<std::string> run() {
    alternatives(0);
    if (error_.ok() && !at_end()) malformed("unmatched ')'");
    if (failed()) return Status(error_.code(), lossy(error_.message()), error_.hint());
    return std::move(out_);
  }

 private:
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
  void atom(std::string text) {
    atom_ = out_.size();
    out_ += text;
  }
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
  size_t pos_ = 0;
  std::string out_;
  std::optional<size_t> atom_;  // where in out_ the expression a quantifier applies to begins
  Status error_;
};

void Translator::alternatives(int depth) {
  if (depth > kMaxDepth) return malformed("groups nested deeper than 64");
  int open_flag_groups = 0;
  atom_.reset();
  while (!failed() && !at_end() && peek() != ')') {
    if (out_.size() > kMaxTranslated) return malformed("expression too large");
    switch (peek()) {
      case '|':
        ++pos_;
        out_ += '|';
        atom_.reset();
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
        const size_t n = char_length(peek());
        atom(std::string(source_.substr(pos_, n)));
        pos_ += n;
      }
    }
  }
  out_.append(static_cast<size_t>(open_flag_groups), ')');
}

void Translator::group(int depth) {
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
void Translator::inline_flags(int depth, int& open_flag_groups) {
  const size_t start = out_.size();
  pos_ += 2;
  std::string flags;
  while (peek() == 'i' || peek() == 'm' || peek() == 'x' || peek() == '-') {
    flags += peek() == 'm' ? 's' : peek();
    ++pos_;
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
  if (failed()) return;
  if (!accept(")")) return malformed("group without ')'");
  out_ += ')';
  atom_ = start;
}

void Translator::quantifier() {
  if (peek() == '{') {
    if (interval()) return;
    ++pos_;
    atom("\\{");
    return;
  }
  if (!atom_) return malformed("quantifier without a target");
  out_ += peek();
  ++pos_;
  if (peek() == '?' || peek() == '+') {
    out_ += peek();
    ++pos_;
  }
}

// {n}, {n,}, {n,m}, {,m}. A '+' after it repeats the whole (it is not possessive as in PCRE2), and
// so does '?' after {n}.
bool Translator::interval() {
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

void Translator::escape() {
  const size_t start = pos_;
  if (std::optional<CharSet> set = set_escape()) return atom(set->expression());
  if (failed()) return;
  if (std::optional<uint32_t> c = char_escape()) return atom(fmt::format("\\x{{{:x}}}", *c));
  if (failed()) return;
  pos_ = start + 1;
  const char c = peek();
  const std::string word = "[" + std::string(kWord) + "]";
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
    case 'X':
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

// \d \s \w \h \p and their complements; nothing consumed when the escape is another.
std::optional<CharSet> Translator::set_escape() {
  const char c = peek(1);
  const auto take = [&](std::string_view set, bool complement) {
    pos_ += 2;
    return CharSet{std::string(set), complement};
  };
  switch (c) {
    case 'd':
      return take("\\p{Nd}", false);
    case 'D':
      return take("\\P{Nd}", false);
    case 's':
      return take(kSpace, false);
    case 'S':
      return take(kNotSpace, false);
    case 'w':
      return take(kWord, false);
    case 'W':
      return take(kWord, true);
    case 'h':
      return take(kHex, false);
    case 'H':
      return take(kNotHex, false);
    case 'p':
    case 'P':
      pos_ += 2;
      return property(c == 'P');
    default:
      return std::nullopt;
  }
}

CharSet Translator::property(bool negated) {
  if (!accept("{")) {
    malformed("\\p without '{'");
    return {};
  }
  const size_t close = source_.find('}', pos_);
  if (close == std::string_view::npos || close - pos_ > 64) {
    malformed("property name without '}'");
    return {};
  }
  std::string_view name = source_.substr(pos_, close - pos_);
  if (!name.empty() && name.front() == '^') {
    negated = !negated;
    name.remove_prefix(1);
  }
  std::string plain;  // as it was, without the separators that names may contain
  for (const char c : name) {
    if (c == ' ' || c == '-' || c == '_') continue;
    if (!is_letter_or_digit(c) && c != '&') {
      malformed("property name with an unexpected character");
      return {};
    }
    plain += c;
  }
  CharSet set = property_named(plain, negated);
  pos_ = close + 1;
  return set;
}

CharSet Translator::property_named(const std::string& name, bool negated) {
  if (const auto set = posix_set(lower_ascii(name))) return {std::string(*set), negated};
  if (auto set = property_set(name, negated)) return {std::move(*set), false};
  unsupported(fmt::format("\"\\p{{{}}}\"", name));
  return {};
}

// Escapes that denote one character; nothing consumed when the escape is another.
std::optional<uint32_t> Translator::char_escape() {
  const char c = peek(1);
  static constexpr std::array<std::pair<char, uint32_t>, 7> kControls = {
      {{'n', 10}, {'r', 13}, {'t', 9}, {'f', 12}, {'v', 11}, {'a', 7}, {'e', 27}}};
  for (const auto& [letter, value] : kControls) {
    if (c == letter) {
      pos_ += 2;
      return value;
    }
  }
  if (c == 'x' || c == 'u') {
    pos_ += 2;
    const bool braces = c == 'x' && accept("{");
    const auto value = c == 'u' ? hex_digits(4, 4) : hex_digits(1, braces ? 8 : 2);
    if (!value || (braces && !accept("}")) || *value > 0x10FFFF ||
        (*value >= 0xD800 && *value <= 0xDFFF)) {
      malformed("character escape that names no character");
      return std::nullopt;
    }
    return value;
  }
  if (c == '0') {
    pos_ += 2;
    uint32_t value = 0;
    for (int i = 0; i < 2 && peek() >= '0' && peek() <= '7'; ++i, ++pos_) {
      value = value * 8 + static_cast<uint32_t>(peek() - '0');
    }
    return value;
  }
  if (is_letter_or_digit(c) || pos_ + 1 >= source_.size()) return std::nullopt;
  ++pos_;
  const DecodedChar literal = decode_char(source_, pos_);
  pos_ += literal.length;
  return literal.code_point;
}

std::optional<uint32_t> Translator::hex_digits(size_t min, size_t max) {
  uint32_t value = 0;
  size_t n = 0;
  for (; n < max; ++n, ++pos_) {
    const char c = peek();
    uint32_t digit = 0;
    if (c >= '0' && c <= '9') {
      digit = static_cast<uint32_t>(c - '0');
    } else if ((c >= 'a' && c <= 'f') || (c >= 'A' && c <= 'F')) {
      digit = static_cast<uint32_t>((c | 0x20) - 'a') + 10;
    } else {
      break;
    }
    value = value * 16 + digit;
  }
  if (n < min) return std::nullopt;
  return value;
}

// After '['. The result matches one character and is a single atom.
std::string Translator::bracket_class(int depth) {
  if (depth > kMaxDepth) {
    malformed("classes nested deeper than 64");
    return {};
  }
  const bool negated = accept("^");
  bool more = true;
  std::string intersection = class_union(depth, more);
  bool simple = !intersection.empty() && intersection.front() == '[' && !more;
  while (more && !failed()) {
    intersection = "(?:(?=" + intersection + ")" + class_union(depth, more) + ")";
  }
  if (failed()) return {};
  if (!negated) return intersection;
  if (simple && intersection.compare(0, 2, "[^") != 0) return "[^" + intersection.substr(1);
  return fmt::format("(?:(?!{})[{}])", intersection, kAny);
}

// One operand of '&&', up to ']' (more = false) or the next '&&' (more = true).
std::string Translator::class_union(int depth, bool& more) {
  std::string items;
  std::vector<std::string> parts;  // alternatives that class content cannot express
  bool first = true;
  more = false;
  while (!failed()) {
    if (at_end()) {
      malformed("class without ']'");
      return {};
    }
    if (peek() == ']' && !first) {
      ++pos_;
      break;
    }
    if (accept("&&")) {
      more = true;
      break;
    }
    if (looking_at("[:")) {
      posix_bracket(items, parts);
    } else if (peek() == '[') {
      ++pos_;
      parts.push_back(bracket_class(depth + 1));
    } else {
      class_item(items, parts);
    }
    first = false;
  }
  if (parts.empty()) return items.empty() ? "(?!)" : "[" + items + "]";
  std::string joined = items.empty() ? "" : "[" + items + "]";
  for (const std::string& part : parts) joined += (joined.empty() ? "" : "|") + part;
  return "(?:" + joined + ")";
}

// A character, a range, or an escape that stands for a set.
void Translator::class_item(std::string& items, std::vector<std::string>& parts) {
  if (peek() == '\\') {
    if (std::optional<CharSet> set = set_escape()) {
      if (set->complement) {
        parts.push_back(set->expression());
      } else {
        items += set->set;
      }
      return;
    }
  }
  const std::optional<uint32_t> low = class_char();
  if (!low) return;
  items += fmt::format("\\x{{{:x}}}", *low);
  const bool range = peek() == '-' && peek(1) != ']' && peek(1) != '[' && pos_ + 1 < source_.size();
  if (!range) return;
  const size_t dash = pos_++;
  if (peek() == '\\' && std::string_view("dDsSwWhHpP").find(peek(1)) != std::string_view::npos) {
    pos_ = dash + 1;
    items += "\\x{2d}";  // [a-\d]: the dash is itself
    return;
  }
  const std::optional<uint32_t> high = class_char();
  if (!high) return;
  if (*high < *low) return malformed("range out of order");
  items += fmt::format("-\\x{{{:x}}}", *high);
}

std::optional<uint32_t> Translator::class_char() {
  if (peek() != '\\') {
    const DecodedChar c = decode_char(source_, pos_);
    pos_ += c.length;
    return c.code_point;
  }
  if (peek(1) == 'b') {
    pos_ += 2;
    return 8;
  }
  std::optional<uint32_t> c = char_escape();
  if (!c && !failed()) unsupported(fmt::format("\"\\{}\" in a class", peek(1)));
  return c;
}

void Translator::posix_bracket(std::string& items, std::vector<std::string>& parts) {
  const size_t close = source_.find(":]", pos_ + 2);
  if (close == std::string_view::npos) return malformed("'[:' without ':]'");
  std::string_view name = source_.substr(pos_ + 2, close - pos_ - 2);
  const bool negated = !name.empty() && name.front() == '^';
  if (negated) name.remove_prefix(1);
  const auto set = posix_set(name);
  if (!set) return unsupported(fmt::format("\"[:{}:]\"", name));
  pos_ = close + 2;
  if (negated) {
    parts.push_back("[^" + std::string(*set) + "]");
  } else {
    items += *set;
  }
}

}  // namespace

Result<std::string> translate_oniguruma(std::string_view pattern) {
  if (pattern.size() > kMaxPattern) {
    return Status(Code::kDataCorrupt, fmt::format("regular expression of {} bytes; the limit is {}",
                                                  pattern.size(), kMaxPattern));
  }
  if (const auto bad = find_invalid_utf8(pattern)) {
    return Status(Code::kDataCorrupt,
                  fmt::format("regular expression is not UTF-8 at byte {}", *bad));
  }
  return Translator(pattern).run();
}

}  // namespace chimera::tokenizer
