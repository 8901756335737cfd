// Bracket classes, the sets that escapes stand for, and escapes of single characters.
#include <fmt/format.h>

#include <array>

#include "text/tokenizer/regex/names.h"
#include "text/tokenizer/regex/translator.h"

namespace chimera::tokenizer {
// \d \s \w \h \p and their complements; nothing consumed when the escape is another.
std::optional<CharSet> RegexTranslator::set_escape() {
  const char c = peek(1);
  const auto take = [&](std::string_view set, bool complement) {
    pos_ += 2;
    return CharSet{by_tables(set, tables_), complement};
  };
  switch (c) {
    case 'd':
      return take("\\p{Nd}", false);
    case 'D':
      return take("\\p{Nd}", true);
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

CharSet RegexTranslator::property(bool negated) {
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

CharSet RegexTranslator::property_named(const std::string& name, bool negated) {
  const std::string lower = lower_ascii(name);
  const auto set =
      lower == "punct" ? std::nullopt : posix_set(lower == "posixpunct" ? "punct" : lower);
  if (set) return {by_tables(*set, tables_), negated};
  if (auto known = property_set(name, negated, tables_)) return std::move(*known);
  unsupported(fmt::format("\"\\p{{{}}}\"", name));
  return {};
}

// Escapes that denote one character; nothing consumed when the escape is another.
std::optional<uint32_t> RegexTranslator::char_escape() {
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

std::optional<uint32_t> RegexTranslator::hex_digits(size_t min, size_t max) {
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
std::string RegexTranslator::bracket_class(int depth) {
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
std::string RegexTranslator::class_union(int depth, bool& more) {
  std::string items;
  std::vector<std::string> parts;  // alternatives that class content cannot express
  bool first = true;
  more = false;
  while (!failed()) {
    if (items.size() > kMaxTranslated) malformed("class too large");
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
void RegexTranslator::class_item(std::string& items, std::vector<std::string>& parts) {
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

std::optional<uint32_t> RegexTranslator::class_char() {
  if (peek() != '\\') {
    const DecodedChar c = decode_char(source_, pos_);
    pos_ += c.length;
    refuse_folding(c.code_point);
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

void RegexTranslator::posix_bracket(std::string& items, std::vector<std::string>& parts) {
  const size_t close = source_.find(":]", pos_ + 2);
  if (close == std::string_view::npos) return malformed("'[:' without ':]'");
  std::string_view name = source_.substr(pos_ + 2, close - pos_ - 2);
  const bool negated = !name.empty() && name.front() == '^';
  if (negated) name.remove_prefix(1);
  const auto set = posix_set(name);
  if (!set) return unsupported(fmt::format("\"[:{}:]\"", name));
  pos_ = close + 2;
  if (negated) {
    parts.push_back("[^" + by_tables(*set, tables_) + "]");
  } else {
    items += by_tables(*set, tables_);
  }
}

}  // namespace chimera::tokenizer
