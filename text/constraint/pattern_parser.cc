// The reader of regular expressions: recursive descent over characters.
#include <fmt/format.h>

#include <optional>
#include <utility>

#include "base/quote.h"
#include "base/utf8.h"
#include "text/constraint/pattern.h"

namespace chimera::constraint {
namespace {

constexpr int kMaxNesting = 64;

const CodePoints kDigits = {{'0', '9'}};
const CodePoints kWord = {{'0', '9'}, {'A', 'Z'}, {'_', '_'}, {'a', 'z'}};
const CodePoints kSpace = {{'\t', '\r'}, {' ', ' '}};

/// Readers differ on which characters beyond ASCII, and whether 1C to 1F, are letters, digits and
/// spaces. What is asked for by their absence keeps to what is none for all of them.
CodePoints undisputed(const CodePoints& set) {
  return set.without({{0x1C, 0x1F}, {0x80, 0x10FFFF}});
}

class Parser {
 public:
  explicit Parser(std::string_view text) : text_(text) {}

  Result<std::vector<PatternBranch>> run() {
    if (text_.size() > kMaxPatternBytes)
      fail(fmt::format("{} bytes (expected at most {})", text_.size(), kMaxPatternBytes));
    if (find_invalid_utf8(text_)) fail("not UTF-8");
    std::vector<PatternBranch> out;
    if (problem_.empty()) {
      do out.push_back(branch());
      while (problem_.empty() && take('|'));
    }
    if (problem_.empty() && at_ < text_.size())
      fail("a closing parenthesis without its opening one");
    if (problem_.empty()) return out;
    return Status(Code::kInvalidArgument, fmt::format("byte {}: {}", at_, problem_),
                  "docs/constraints.md lists what expressions may have");
  }

 private:
  bool done() const { return at_ >= text_.size() || !problem_.empty(); }
  char peek() const { return done() ? '\0' : text_[at_]; }
  bool take(char c) {
    if (done() || text_[at_] != c) return false;
    ++at_;
    return true;
  }
  void fail(std::string problem) {
    if (problem_.empty()) problem_ = std::move(problem);
  }
  uint32_t take_char() {
    const DecodedChar c = decode_char(text_, at_);
    at_ += c.length;
    return c.code_point;
  }

  PatternBranch branch() {
    PatternBranch out;
    out.at_start = take('^');
    out.tree = sequence(/*outermost=*/true);
    out.at_end = take('$');
    if (out.at_end && !done() && peek() != '|') fail("\"$\" in the middle (expected at the end)");
    return out;
  }

  PatternNode alternatives() {
    PatternNode out{.kind = PatternNode::Kind::kEither};
    do out.parts.push_back(sequence(/*outermost=*/false));
    while (take('|'));
    return out.parts.size() == 1 ? std::move(out.parts[0]) : std::move(out);
  }

  PatternNode sequence(bool outermost) {
    PatternNode out{.kind = PatternNode::Kind::kSequence};
    while (!done() && peek() != '|' && peek() != ')') {
      if (peek() == '$' && outermost) break;
      out.parts.push_back(repeated());
    }
    return out;
  }

  PatternNode repeated() {
    PatternNode part = atom();
    while (!done()) {
      int least = 0, most = kUnbounded;
      if (take('*')) {
      } else if (take('+')) {
        least = 1;
      } else if (take('?')) {
        most = 1;
      } else if (peek() != '{') {
        break;
      } else if (!count(least, most)) {
        break;
      }
      if (!take('?') && peek() == '+') fail("a possessive count (not supported)");
      PatternNode out{.kind = PatternNode::Kind::kRepeat, .least = least, .most = most};
      out.parts.push_back(std::move(part));
      part = std::move(out);
      if (peek() == '*' || peek() == '+' || peek() == '?' || peek() == '{')
        fail("a count of a count (expected a group in between)");
    }
    return part;
  }

  bool count(int& least, int& most) {
    take('{');
    const std::optional<int> from = number();
    least = from.value_or(0);
    most = least;
    if (take(',')) most = peek() == '}' ? kUnbounded : number().value_or(-2);
    if (!from || most == -2 || !take('}'))
      fail(fmt::format("a count (expected {{m}}, {{m,}} or {{m,n}} up to {})", kMaxRepeat));
    if (most != kUnbounded && most < least) fail("a count whose end is before its beginning");
    return problem_.empty();
  }

  std::optional<int> number() {
    std::optional<int> out;
    while (peek() >= '0' && peek() <= '9') {
      out = out.value_or(0) * 10 + (text_[at_] - '0');
      if (*out > kMaxRepeat) return std::nullopt;
      ++at_;
    }
    return out;
  }

  static PatternNode set_node(CodePoints set) {
    return {.kind = PatternNode::Kind::kSet, .set = std::move(set)};
  }

  PatternNode atom() {
    switch (peek()) {
      case '(':
        return group();
      case '[':
        return set_node(bracket());
      case '.':
        ++at_;
        return set_node(CodePoints{{'\n', '\n'}, {'\r', '\r'}, {0x2028, 0x2029}}.complement());
      case '\\':
        ++at_;
        return set_node(escape(/*in_bracket=*/false));
      case '^':
      case '$':
        fail(fmt::format("\"{}\" in the middle (expected at the ends of the expression)", peek()));
        return {};
      case '*':
      case '+':
      case '?':
      case '{':
        fail(fmt::format("\"{}\" behind nothing that it could count", peek()));
        return {};
      default: {
        const uint32_t c = take_char();
        return set_node({{c, c}});
      }
    }
  }

  PatternNode group() {
    take('(');
    if (++nesting_ > kMaxNesting) fail(fmt::format("groups more than {} deep", kMaxNesting));
    if (take('?') && !take(':')) {
      const std::string_view rest = text_.substr(at_);
      const bool named =
          (rest.starts_with("<") && !rest.starts_with("<=") && !rest.starts_with("<!")) ||
          rest.starts_with("P<");
      const size_t close = rest.find('>');
      if (!named || close == std::string_view::npos) {
        fail("a group that looks around or sets flags (not supported)");
      } else {
        at_ += close + 1;
      }
    }
    PatternNode out = alternatives();
    if (!take(')')) fail("a group that is not closed");
    --nesting_;
    return out;
  }

  /// What follows a backslash.
  CodePoints escape(bool in_bracket) {
    if (done()) {
      fail("a backslash at the end");
      return {};
    }
    const char c = text_[at_];
    constexpr std::string_view kControls = "nrtfv0", kValues{"\n\r\t\f\v\0", 6};
    if (const size_t i = kControls.find(c); i != std::string_view::npos) {
      ++at_;
      const auto value = static_cast<unsigned char>(kValues[i]);
      return {{value, value}};
    }
    switch (c) {
      case 'd':
      case 'D':
        return class_of(kDigits);
      case 'w':
      case 'W':
        return class_of(kWord);
      case 's':
      case 'S':
        return class_of(kSpace);
      case 'x':
        return hexadecimal(2);
      case 'u':
        return hexadecimal(4);
      case 'b':
        if (in_bracket) {
          ++at_;
          return {{'\b', '\b'}};
        }
        break;
      default:
        break;
    }
    const bool letter = (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    if (letter) {
      fail(fmt::format("\"\\{}\" (not supported)", c));
      return {};
    }
    const uint32_t value = take_char();
    return {{value, value}};
  }

  /// The class of the letter that is there; of a capital one all others.
  CodePoints class_of(const CodePoints& set) {
    const char letter = text_[at_++];
    class_seen_ = true;
    return letter >= 'a' ? set : undisputed(set.complement());
  }

  CodePoints hexadecimal(size_t digits) {
    ++at_;
    const bool braced = digits == 4 && take('{');
    uint32_t value = 0;
    size_t read = 0;
    const size_t most = braced ? 6 : digits;
    for (; read < most && !done(); ++read, ++at_) {
      const char c = text_[at_];
      const int digit = c >= '0' && c <= '9'   ? c - '0'
                        : c >= 'a' && c <= 'f' ? c - 'a' + 10
                        : c >= 'A' && c <= 'F' ? c - 'A' + 10
                                               : -1;
      if (digit < 0) break;
      value = value * 16 + static_cast<uint32_t>(digit);
    }
    const bool complete = braced ? read > 0 && take('}') : read == digits;
    if (!complete || value > 0x10FFFF || (value >= 0xD800 && value <= 0xDFFF)) {
      fail("an escaped character (expected the hexadecimal digits of one)");
      return {};
    }
    return {{value, value}};
  }

  CodePoints bracket() {
    take('[');
    const bool negated = take('^');
    class_seen_ = false;
    CodePoints out;
    for (bool first = true; !done() && (first || peek() != ']'); first = false) {
      if (first && peek() == ']') break;  // ECMAScript: [] is empty, [^] any character
      const CodePoints from = member();
      const bool single = is_single(from);
      if (peek() == '-' && at_ + 1 < text_.size() && text_[at_ + 1] != ']') {
        take('-');
        const CodePoints to = member();
        if (problem_.empty() && (!single || !is_single(to) || first_of(to) < first_of(from)))
          fail("a range of characters whose ends do not fit");
        if (problem_.empty()) out.add(first_of(from), first_of(to));
        continue;
      }
      out.add(from);
    }
    if (!take(']')) fail("a set of characters that is not closed");
    if (!negated) return out;
    return class_seen_ ? undisputed(out.complement()) : out.complement();
  }

  CodePoints member() {
    if (take('\\')) return escape(/*in_bracket=*/true);
    if (done()) return {};
    if (text_.substr(at_).starts_with("[:")) fail("a POSIX class (not supported)");
    const uint32_t c = take_char();
    return {{c, c}};
  }

  static bool is_single(const CodePoints& set) {
    return set.ranges().size() == 1 && set.ranges()[0].first == set.ranges()[0].last;
  }
  static uint32_t first_of(const CodePoints& set) { return set.ranges()[0].first; }

  const std::string_view text_;
  size_t at_ = 0;
  int nesting_ = 0;
  bool class_seen_ = false;  // \d and the like, in the set that is being read
  std::string problem_;
};

}  // namespace

Result<std::vector<PatternBranch>> parse_pattern(std::string_view pattern) {
  return Parser(pattern).run();
}

}  // namespace chimera::constraint
