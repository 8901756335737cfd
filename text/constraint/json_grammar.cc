#include "text/constraint/json_grammar.h"

#include <algorithm>
#include <array>
#include <map>

#include "base/json/writer.h"
#include "base/utf8.h"
#include "text/constraint/code_points.h"

namespace chimera::constraint {
namespace {

/// Beyond ASCII too: whatever may stand in a string as it is.
const CodePoints& plain_characters() {
  static const CodePoints set = CodePoints{{0, 0x1F}, {'"', '"'}, {'\\', '\\'}}.complement();
  return set;
}

NodeId hex(NetworkBuilder& builder, NodeId next) {
  return builder.either(builder.byte('0', '9', next),
                        builder.either(builder.byte('a', 'f', next), builder.byte('A', 'F', next)));
}

NodeId letter(NetworkBuilder& builder, char lower, char lower_last, NodeId next) {
  const auto upper = [](char c) { return static_cast<uint8_t>(c - 'a' + 'A'); };
  return builder.either(
      builder.byte(static_cast<uint8_t>(lower), static_cast<uint8_t>(lower_last), next),
      builder.byte(upper(lower), upper(lower_last), next));
}

}  // namespace

JsonGrammar::JsonGrammar(NetworkBuilder& builder) : builder_(builder) {
  NodeId indent = builder_.end();
  for (int i = 0; i < kMaxIndent; ++i) {
    indent = builder_.either(builder_.byte(' ', ' ', indent), builder_.end());
  }
  space_ = builder_.rule(
      "space", builder_.either(builder_.end(), builder_.either(builder_.text(" ", builder_.end()),
                                                               builder_.text("\n", indent))));
  character_ = define_character();
  const NodeId closing = builder_.text("\"", builder_.end());
  const NodeId inside = builder_.open_loop();
  builder_.close_loop(inside, builder_.call(character_, inside), closing);
  string_ = builder_.rule("string", builder_.text("\"", inside));
  integer_ = builder_.rule(
      "integer", builder_.optional(builder_.text("-", natural(0, INT64_MAX, builder_.end())),
                                   natural(0, INT64_MAX, builder_.end())));
  const NodeId exponent_digits = digits(1, 2, builder_.end());
  const NodeId sign = builder_.either(
      exponent_digits,
      builder_.either(builder_.text("+", exponent_digits), builder_.text("-", exponent_digits)));
  const NodeId exponent = builder_.either(builder_.end(), letter(builder_, 'e', 'e', sign));
  const NodeId tail =
      builder_.either(exponent, builder_.text(".", digits(1, kMaxFractionDigits, exponent)));
  const NodeId natural_part = natural(0, INT64_MAX, tail);
  number_ =
      builder_.rule("number", builder_.either(natural_part, builder_.text("-", natural_part)));
  value_ = builder_.declare("any value");
  const NodeId end = builder_.end();
  NodeId any = builder_.either(null(end), boolean(end));
  any = builder_.either(any, builder_.either(any_string(end), any_number(end)));
  any = builder_.either(any, builder_.either(any_object(end), any_array(end)));
  builder_.define(value_, any);
}

NodeId JsonGrammar::any_object(NodeId next) {
  const auto member = [this](NodeId behind) {
    return any_string(builder_.text(":", after_colon(builder_.call(value_, behind))));
  };
  return builder_.text("{", space(list(member, 0, {}, builder_.text("}", next))));
}

NodeId JsonGrammar::any_array(NodeId next) {
  const auto item = [this](NodeId behind) { return builder_.call(value_, behind); };
  return builder_.text("[", space(list(item, 0, {}, builder_.text("]", next))));
}

NodeId JsonGrammar::any_string(NodeId next) { return builder_.call(string_, next); }
NodeId JsonGrammar::any_number(NodeId next) { return builder_.call(number_, next); }
NodeId JsonGrammar::space(NodeId next) { return builder_.call(space_, next); }

NodeId JsonGrammar::after_colon(NodeId next) {
  return builder_.optional(builder_.text(" ", next), next);
}

NodeId JsonGrammar::literal(const Json& value, NodeId next) {
  return builder_.text(write_json(value), next);
}

NodeId JsonGrammar::boolean(NodeId next) {
  return builder_.either(builder_.text("true", next), builder_.text("false", next));
}

/// One character: as it is or escaped; surrogates in pairs, which are one character as well.
RuleId JsonGrammar::define_character() {
  NetworkBuilder& b = builder_;
  const NodeId end = b.end();
  NodeId escaped = b.fail();
  for (const char c : std::string_view("\"\\/bfnrt")) {
    escaped = b.either(b.text(std::string_view(&c, 1), end), escaped);
  }
  const NodeId two = hex(b, hex(b, end));
  const NodeId three = hex(b, two);
  // dc00 to dfff behind d800 to dbff.
  const NodeId low = b.text("\\u", letter(b, 'd', 'd', letter(b, 'c', 'f', two)));
  const NodeId high = hex(b, hex(b, low));
  const NodeId high_nibble = b.either(b.byte('8', '9', high), letter(b, 'a', 'b', high));
  NodeId unicode = b.either(b.byte('0', '9', three), letter(b, 'a', 'c', three));
  unicode = b.either(unicode, letter(b, 'e', 'f', three));
  unicode = b.either(unicode, letter(b, 'd', 'd', b.either(b.byte('0', '7', two), high_nibble)));
  escaped = b.either(escaped, b.text("u", unicode));
  return b.rule("a character", b.either(one_of(b, plain_characters(), end), b.text("\\", escaped)));
}

NodeId JsonGrammar::string(int64_t least, std::optional<int64_t> most, NodeId next) {
  const NodeId closing = builder_.text("\"", next);
  NodeId out = closing;
  if (!most) {
    out = builder_.open_loop();
    builder_.close_loop(out, builder_.call(character_, out), closing);
  }
  for (int64_t i = least; most && i < *most && !builder_.full(); ++i) {
    out = builder_.either(builder_.call(character_, out), closing);
  }
  for (int64_t i = 0; i < least && !builder_.full(); ++i) out = builder_.call(character_, out);
  return builder_.text("\"", out);
}

NodeId JsonGrammar::digits(int least, int most, NodeId next) {
  NodeId out = next;
  for (int i = least; i < most; ++i) out = builder_.either(builder_.byte('0', '9', out), next);
  for (int i = 0; i < least; ++i) out = builder_.byte('0', '9', out);
  return out;
}

/// Numbers of as many digits as `low` and `high` have, from the one to the other.
NodeId JsonGrammar::interval(const std::string& low, const std::string& high, NodeId next) {
  if (low.empty()) return next;
  const auto digit = [](char c) { return static_cast<uint8_t>(c); };
  const size_t rest = low.size() - 1;
  if (low.find_first_not_of('0') == std::string::npos &&
      high.find_first_not_of('9') == std::string::npos) {
    return digits(static_cast<int>(low.size()), static_cast<int>(low.size()), next);
  }
  if (low[0] == high[0]) {
    return builder_.byte(digit(low[0]), digit(low[0]),
                         interval(low.substr(1), high.substr(1), next));
  }
  NodeId out = builder_.byte(digit(low[0]), digit(low[0]),
                             interval(low.substr(1), std::string(rest, '9'), next));
  out = builder_.either(out, builder_.byte(digit(high[0]), digit(high[0]),
                                           interval(std::string(rest, '0'), high.substr(1), next)));
  if (high[0] - low[0] < 2) return out;
  const auto all = static_cast<int>(rest);
  return builder_.either(
      out, builder_.byte(static_cast<uint8_t>(low[0] + 1), static_cast<uint8_t>(high[0] - 1),
                         digits(all, all, next)));
}

/// Integers from `low` >= 0 to `high`, without zeros in front.
NodeId JsonGrammar::natural(int64_t low, int64_t high, NodeId next) {
  NodeId out = builder_.fail();
  int64_t first = 0;  // of those with `size` digits
  int64_t last = 9;
  for (int size = 1;; ++size) {
    if (low <= last && high >= first) {
      out = builder_.either(out, interval(std::to_string(std::max(low, first)),
                                          std::to_string(std::min(high, last)), next));
    }
    if (size == kMaxIntegerDigits) break;  // one more digit does not go into 64 bits
    first = last + 1;
    last = last * 10 + 9;
  }
  return out;
}

NodeId JsonGrammar::integer(const Bounds& bounds, NodeId next) {
  if (!bounds.least && !bounds.most) return builder_.call(integer_, next);
  constexpr int64_t kLargest = 999'999'999'999'999'999;  // kMaxIntegerDigits
  int64_t low = std::max(bounds.least.value_or(-kLargest), -kLargest);
  int64_t high = std::min(bounds.most.value_or(kLargest), kLargest);
  if (bounds.least && bounds.least_open) ++low;
  if (bounds.most && bounds.most_open) --high;
  if (low > high) return builder_.fail();
  NodeId out = builder_.fail();
  if (high >= 0) out = natural(std::max<int64_t>(low, 0), high, next);
  if (low < 0) {
    const NodeId below = natural(std::max<int64_t>(-high, 1), -low, next);
    out = builder_.either(out, builder_.byte('-', '-', below));
  }
  return out;
}

/// A point and digits. `above_zero`: not all of them 0.
NodeId JsonGrammar::fraction(bool above_zero, NodeId next) {
  if (!above_zero) return builder_.text(".", digits(1, kBoundedFractionDigits, next));
  NodeId out = builder_.fail();
  for (int behind = 0; behind < kBoundedFractionDigits; ++behind) {
    out = builder_.either(builder_.byte('1', '9', digits(0, behind, next)),
                          builder_.byte('0', '0', out));
  }
  return builder_.text(".", out);
}

/// Numbers without sign and exponent within bounds that are not negative.
NodeId JsonGrammar::magnitude(Bounds bounds, NodeId next) {
  const int64_t low = bounds.least.value_or(0);
  const int64_t high = bounds.most.value_or(kMaxRealBound);
  if (low > high || (low == high && (bounds.least_open || bounds.most_open))) {
    return builder_.fail();
  }
  NodeId out = builder_.fail();
  if (!bounds.most_open)
    out = natural(high, high, builder_.optional(builder_.text(".0", next), next));
  if (low == high) return out;
  if (bounds.least_open) out = builder_.either(out, natural(low, low, fraction(true, next)));
  const int64_t from = bounds.least_open ? low + 1 : low;
  if (from < high) {
    const NodeId tail = builder_.either(next, fraction(false, next));
    out = builder_.either(out, natural(from, high - 1, tail));
  }
  return out;
}

NodeId JsonGrammar::number(const Bounds& bounds, NodeId next) {
  if (!bounds.least && !bounds.most) return any_number(next);
  NodeId out = builder_.fail();
  if (bounds.most.value_or(1) >= 0) {
    Bounds above = bounds;
    if (bounds.least.value_or(-1) < 0) {
      above.least = 0;
      above.least_open = false;
    }
    out = magnitude(above, next);
  }
  if (bounds.least.value_or(-1) < 0) {  // mirrored, and without a zero that has a sign
    Bounds below;
    below.least_open = bounds.most_open;
    below.most_open = bounds.least_open;
    if (bounds.least) below.most = -*bounds.least;
    if (bounds.most.value_or(0) < 0) {
      below.least = -*bounds.most;
    } else {
      below.least = 0;
      below.least_open = true;
    }
    out = builder_.either(out, builder_.text("-", magnitude(below, next)));
  }
  return out;
}

NodeId JsonGrammar::list(const Part& item, int64_t least, std::optional<int64_t> most,
                         NodeId close) {
  if (most == 0) return close;
  const NodeId last = space(close);
  const auto another = [&](NodeId next) { return builder_.text(",", space(item(next))); };
  NodeId rest = last;  // behind an item
  if (!most) {
    rest = builder_.open_loop();
    builder_.close_loop(rest, another(rest), last);
  }
  const int64_t required = std::max<int64_t>(least, 1);
  for (int64_t i = required; most && i < *most && !builder_.full(); ++i) {
    rest = builder_.either(another(rest), last);
  }
  for (int64_t i = 1; i < required && !builder_.full(); ++i) rest = another(rest);
  const NodeId first = item(rest);
  return least == 0 ? builder_.either(close, first) : first;
}

NodeId JsonGrammar::other_name(const std::vector<std::string>& names, NodeId next) {
  struct Branch {
    std::map<uint32_t, Branch> children;
    bool is_name = false;
  };
  Branch root;
  for (const std::string& name : names) {
    Branch* branch = &root;
    bool plain = true;
    for (size_t i = 0; i < name.size() && plain;) {
      const DecodedChar c = decode_char(name, i);
      plain = plain_characters().contains(c.code_point);  // others can only be escaped
      if (plain) branch = &branch->children[c.code_point];
      i += c.length;
    }
    if (plain) branch->is_name = true;
  }
  const NodeId closing = builder_.text("\"", next);
  const NodeId free = builder_.open_loop();
  builder_.close_loop(free, one_of(builder_, plain_characters(), free), closing);
  const auto write = [&](const auto& self, const Branch& branch) -> NodeId {
    CodePoints elsewhere = plain_characters();
    NodeId out = branch.is_name ? builder_.fail() : closing;
    for (const auto& [c, child] : branch.children) {
      elsewhere.remove(c, c);
      out = builder_.either(one_of(builder_, {{c, c}}, self(self, child)), out);
    }
    return builder_.either(out, one_of(builder_, elsewhere, free));
  };
  return builder_.text("\"", write(write, root));
}

}  // namespace chimera::constraint
