#include "text/template/syntax/lexer.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>

#include "text/template/syntax/string_literal.h"
#include "text/template/value/text.h"
#include "text/unicode.h"

namespace chimera::jinja {
namespace {

using Type = Token::Type;

bool is_digit(char c) { return c >= '0' && c <= '9'; }

/// Line ends as "\n"; one at the end is dropped.
std::string normalized(std::string_view source) {
  std::string out;
  out.reserve(source.size());
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] != '\r') {
      out += source[i];
      continue;
    }
    out += '\n';
    if (i + 1 < source.size() && source[i + 1] == '\n') ++i;
  }
  if (!out.empty() && out.back() == '\n') out.pop_back();
  return out;
}

class Lexer {
 public:
  explicit Lexer(std::string source) : source_(std::move(source)), text_(source_) {}

  Result<std::vector<Token>> run() {
    while (at_ < text_.size() && status_.ok()) next_part();
    add(Type::kEnd, "");
    if (!status_.ok()) return status_;
    return std::move(tokens_);
  }

 private:
  void fail(const std::string& message) {
    if (status_.ok()) status_ = template_error(line_, message);
    at_ = text_.size();
  }

  bool starts(std::string_view what, size_t at) const {
    return at <= text_.size() && text_.substr(at).starts_with(what);
  }

  void add(Type type, std::string text) {
    Token token;
    token.type = type;
    token.text = std::move(text);
    token.line = line_;
    tokens_.push_back(std::move(token));
  }

  void advance(size_t to) {
    line_ += static_cast<int>(std::count(text_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         text_.begin() + static_cast<std::ptrdiff_t>(to), '\n'));
    at_ = to;
  }

  size_t skip_space(size_t from) const {
    return from + stripped(text_.substr(from), true, false).begin;
  }

  void next_part();
  void data_before(size_t tag, char sign, bool strip_line);
  void comment(size_t tag);
  bool raw(size_t tag, char sign);
  void expression(Type begin, Type end, std::string_view close);
  size_t tag_end(std::string_view close) const;
  void one_token();
  void string_token();
  void number_token();
  void operator_token();

  std::string source_;
  std::string_view text_;
  size_t at_ = 0;
  int line_ = 1;
  bool at_line_start_ = true;
  std::vector<char> brackets_;
  std::vector<Token> tokens_;
  Status status_;
};

/// Text up to the next tag, then the tag.
void Lexer::next_part() {
  size_t tag = at_;
  while (true) {
    tag = text_.find('{', tag);
    if (tag == std::string_view::npos || tag + 1 == text_.size()) {
      add(Type::kData, std::string(text_.substr(at_)));
      return advance(text_.size());
    }
    const char kind = text_[tag + 1];
    if (kind == '{' || kind == '%' || kind == '#') break;
    ++tag;
  }
  const char kind = text_[tag + 1];
  const char after = tag + 2 < text_.size() ? text_[tag + 2] : ' ';
  const char sign = after == '-' || after == '+' ? after : ' ';
  data_before(tag, sign, /*strip_line=*/kind != '{');
  if (kind == '#') return comment(tag);
  if (kind == '%' && raw(tag, sign)) return;
  advance(tag + (sign == ' ' ? 2 : 3));
  if (kind == '{') {
    expression(Type::kVariableBegin, Type::kVariableEnd, "}}");
  } else {
    expression(Type::kBlockBegin, Type::kBlockEnd, "%}");
  }
}

/// The data token in front of a tag, with what its sign and lstrip_blocks take away.
void Lexer::data_before(size_t tag, char sign, bool strip_line) {
  std::string_view data = text_.substr(at_, tag - at_);
  if (sign == '-') {
    data = data.substr(0, stripped(data, false, true).end);
  } else if (sign != '+' && strip_line) {
    const size_t newline = data.rfind('\n');
    const size_t line_begin = newline == std::string_view::npos ? 0 : newline + 1;
    if ((line_begin > 0 || at_line_start_) &&
        stripped(data.substr(line_begin), true, false).begin == data.size() - line_begin) {
      data = data.substr(0, line_begin);
    }
  }
  if (!data.empty()) add(Type::kData, std::string(data));
  advance(tag);
}

void Lexer::comment(size_t tag) {
  const bool signed_begin = starts("-", tag + 2) || starts("+", tag + 2);
  size_t close = text_.find("#}", tag + (signed_begin ? 3 : 2));
  if (close == std::string_view::npos) return fail("the comment is not closed (expected #})");
  const char sign = text_[close - 1];
  size_t end = close + 2;
  // The sign of the opening ("{#-#}") is not that of the closing.
  const bool closing_sign = close > tag + (signed_begin ? 3 : 2);
  if (closing_sign && sign == '-') {
    end = skip_space(end);
  } else if (!(closing_sign && sign == '+') && starts("\n", end)) {
    ++end;
  }
  at_line_start_ = text_[end - 1] == '\n';
  advance(end);
}

/// {% raw %}…{% endraw %}; false when the tag is another.
bool Lexer::raw(size_t tag, char sign) {
  size_t at = skip_space(tag + (sign == ' ' ? 2 : 3));
  if (!starts("raw", at)) return false;
  at = skip_space(at + 3);
  if (starts("-%}", at)) {
    at = skip_space(at + 3);
  } else if (starts("%}", at)) {
    at += 2;
  } else {
    return false;
  }
  at_line_start_ = text_[at - 1] == '\n';
  advance(at);
  for (size_t end = text_.find("{%", at); end != std::string_view::npos;
       end = text_.find("{%", end + 1)) {
    const char after = end + 2 < text_.size() ? text_[end + 2] : ' ';
    const char end_sign = after == '-' || after == '+' ? after : ' ';
    const size_t name = skip_space(end + (end_sign == ' ' ? 2 : 3));
    if (!starts("endraw", name)) continue;
    const size_t close = skip_space(name + 6);
    const bool signed_close = starts("-%}", close) || starts("+%}", close);
    if (!signed_close && !starts("%}", close)) continue;
    data_before(end, end_sign, /*strip_line=*/true);
    advance(close);
    advance(tag_end("%}"));
    at_line_start_ = text_[at_ - 1] == '\n';
    return true;
  }
  fail("the raw block is not closed (expected {% endraw %})");
  return true;
}

/// End of the tag that closes here with `close`, with the blanks it swallows; 0 when none does.
size_t Lexer::tag_end(std::string_view close) const {
  const bool block = close == "%}";
  if (block && starts("+%}", at_)) return at_ + 3;
  if (starts("-", at_) && starts(close, at_ + 1)) return skip_space(at_ + 3);
  if (!starts(close, at_)) return 0;
  const size_t end = at_ + 2;
  return block && starts("\n", end) ? end + 1 : end;
}

void Lexer::expression(Type begin, Type end, std::string_view close) {
  add(begin, "");
  brackets_.clear();
  while (status_.ok()) {
    if (at_ >= text_.size()) {
      return fail(fmt::format("the tag is not closed (expected {})", close));
    }
    if (brackets_.empty()) {
      if (const size_t after = tag_end(close); after != 0) {
        add(end, "");
        at_line_start_ = text_[after - 1] == '\n';
        return advance(after);
      }
    }
    const size_t token = skip_space(at_);
    if (token > at_) {
      advance(token);
    } else {
      one_token();
    }
  }
}

void Lexer::one_token() {
  const char c = text_[at_];
  if (is_digit(c)) return number_token();
  if (c == '"' || c == '\'') return string_token();
  const auto word = decode_char(text_, at_);
  if (!tokenizer::is_word(word.code_point) || is_decimal(word.code_point)) return operator_token();
  size_t end = at_;
  while (end < text_.size()) {
    const auto letter = decode_char(text_, end);
    if (!tokenizer::is_word(letter.code_point)) break;
    end += letter.length;
  }
  add(Type::kName, std::string(text_.substr(at_, end - at_)));
  advance(end);
}

void Lexer::string_token() {
  const char quote = text_[at_];
  size_t end = at_ + 1;
  while (end < text_.size() && text_[end] != quote) end += text_[end] == '\\' ? 2 : 1;
  if (end >= text_.size()) return fail("the string is not closed");
  std::string problem;
  std::string value = unescape(text_.substr(at_ + 1, end - at_ - 1), &problem);
  if (!problem.empty()) return fail(problem);
  add(Type::kString, std::move(value));
  advance(end + 1);
}

void Lexer::number_token() {
  const NumberLiteral number = read_number(text_, at_);
  if (!number.problem.empty()) return fail(number.problem);
  add(number.is_real ? Type::kFloat : Type::kInteger,
      std::string(text_.substr(at_, number.end - at_)));
  tokens_.back().integer = number.integer;
  tokens_.back().real = number.real;
  advance(number.end);
}

void Lexer::operator_token() {
  static constexpr std::array<std::string_view, 8> kLong = {
      "//", "**", "==", "!=", ">=", "<=", "", ""};
  static constexpr std::string_view kShort = "+-/*%~[](){}><=.:|,;";
  static constexpr std::string_view kOpening = "([{", kClosing = ")]}";
  for (const std::string_view spelling : kLong) {
    if (!spelling.empty() && starts(spelling, at_)) {
      add(Type::kOperator, std::string(spelling));
      return advance(at_ + 2);
    }
  }
  const char c = text_[at_];
  if (kShort.find(c) == std::string_view::npos) {
    const size_t length = char_length(c);
    return fail(fmt::format("unexpected character '{}'", text_.substr(at_, length)));
  }
  if (const size_t kind = kOpening.find(c); kind != std::string_view::npos) {
    brackets_.push_back(kClosing[kind]);
  } else if (kClosing.find(c) != std::string_view::npos) {
    if (brackets_.empty() || brackets_.back() != c) {
      return fail(fmt::format(
          "unexpected '{}'{}", c,
          brackets_.empty() ? std::string() : fmt::format(" (expected '{}')", brackets_.back())));
    }
    brackets_.pop_back();
  }
  add(Type::kOperator, std::string(1, c));
  advance(at_ + 1);
}

}  // namespace

Result<std::vector<Token>> tokenize(std::string_view source) {
  return Lexer(normalized(source)).run();
}

Status template_error(int line, const std::string& message) {
  return Status(Code::kDataCorrupt, fmt::format("template line {}: {}", line, message),
                "correct the template");
}

}  // namespace chimera::jinja
