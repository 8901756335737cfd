#include "text/template/builtins/string_methods.h"

#include <fmt/format.h>

#include <algorithm>
#include <array>

#include "text/template/builtins/format.h"
#include "text/template/builtins/methods.h"
#include "text/unicode.h"

namespace chimera::jinja {
namespace {

/// A call of one method: what it is called on and with.
struct Call {
  Runtime& run;
  const Text& self;
  std::string_view name;
  const CallArgs& args;
  const std::string& bytes() const { return self.str(); }
};

Value nothing(const Call& c) {
  const Bound none(c.run, c.name, c.args, {});
  return {};
}

Value change_case(const Call& c) {
  nothing(c);
  const Case what = c.name == "upper"        ? Case::kUpper
                    : c.name == "title"      ? Case::kTitle
                    : c.name == "capitalize" ? Case::kCapitalize
                    : c.name == "swapcase"   ? Case::kSwap
                                             : Case::kLower;
  return c.run.string(with_case(c.self, what));
}

Value strip(const Call& c) {
  const Bound bound(c.run, c.name, c.args, {"chars"});
  const bool left = c.name != "rstrip", right = c.name != "lstrip";
  const TextSpan kept = bound.given(0) ? stripped_of(c.bytes(), bound.text(0).str(), left, right)
                                       : stripped(c.bytes(), left, right);
  return c.run.string(c.self.slice(kept.begin, kept.end));
}

/// str.split() without separator: words between blanks, at most `limit` cuts when that is not
/// negative; the rest keeps its blanks.
std::vector<Value> words(const Call& c, int64_t limit, bool from_right) {
  std::vector<Value> out;
  TextSpan rest = stripped(c.bytes(), true, true);
  const std::string_view bytes = c.bytes();
  while (rest.begin < rest.end && c.run.ok()) {
    if (limit == 0) {
      // The side that was not cut keeps its blanks.
      const TextSpan kept = from_right ? TextSpan{0, rest.end} : TextSpan{rest.begin, bytes.size()};
      out.push_back(c.run.string(c.self.slice(kept.begin, kept.end)));
      break;
    }
    --limit;
    size_t cut = rest.begin;
    size_t word_begin = rest.begin;
    if (from_right) {
      word_begin = rest.end;
      while (word_begin > rest.begin) {
        size_t before = word_begin - 1;
        while ((static_cast<uint8_t>(bytes[before]) & 0xC0u) == 0x80u) --before;
        if (is_space(decode_char(bytes, before).code_point)) break;
        word_begin = before;
      }
      out.push_back(c.run.string(c.self.slice(word_begin, rest.end)));
      rest.end =
          rest.begin + stripped(bytes.substr(rest.begin, word_begin - rest.begin), false, true).end;
    } else {
      while (cut < rest.end && !is_space(decode_char(bytes, cut).code_point)) {
        cut += decode_char(bytes, cut).length;
      }
      out.push_back(c.run.string(c.self.slice(rest.begin, cut)));
      rest.begin = cut + stripped(bytes.substr(cut, rest.end - cut), true, false).begin;
    }
  }
  if (from_right) std::reverse(out.begin(), out.end());
  return out;
}

Value split(const Call& c) {
  const Bound bound(c.run, c.name, c.args, {"sep", "maxsplit"});
  int64_t limit = bound.integer(1, -1);
  const bool from_right = c.name == "rsplit";
  if (!bound.given(0)) return c.run.list(words(c, limit, from_right));
  const std::string& separator = bound.text(0).str();
  if (separator.empty()) return c.run.fail("split: the separator is empty");
  std::vector<Value> out;
  size_t begin = 0, end = c.bytes().size();
  while (limit != 0 && c.run.ok()) {
    if (from_right) {
      const size_t at = end < separator.size() ? std::string::npos
                                               : c.bytes().rfind(separator, end - separator.size());
      if (at == std::string::npos) break;
      out.push_back(c.run.string(c.self.slice(at + separator.size(), end)));
      end = at;
    } else {
      const size_t at = c.bytes().find(separator, begin);
      if (at == std::string::npos) break;
      out.push_back(c.run.string(c.self.slice(begin, at)));
      begin = at + separator.size();
    }
    --limit;
  }
  out.push_back(c.run.string(c.self.slice(begin, end)));
  if (from_right) std::reverse(out.begin(), out.end());
  return c.run.list(std::move(out));
}

Value lines(const Call& c) {
  const Bound bound(c.run, c.name, c.args, {"keepends"});
  std::vector<Value> out;
  for (Text& line : split_lines(c.run, c.self, bound.flag(0, false))) {
    out.push_back(c.run.string(std::move(line)));
  }
  return c.run.list(std::move(out));
}

Value partition(const Call& c) {
  const Bound bound(c.run, c.name, c.args, {"sep"}, 1);
  const Text& separator = bound.text(0);
  if (!c.run.ok()) return {};
  if (separator.empty()) return c.run.fail("partition: the separator is empty");
  const bool last = c.name == "rpartition";
  const size_t at = last ? c.bytes().rfind(separator.str()) : c.bytes().find(separator.str());
  const Value whole = c.run.string(c.self), empty = c.run.string(Text());
  if (at == std::string::npos) {
    return last ? c.run.tuple({empty, empty, whole}) : c.run.tuple({whole, empty, empty});
  }
  return c.run.tuple({c.run.string(c.self.slice(0, at)), c.run.string(separator),
                      c.run.string(c.self.slice(at + separator.size(), c.bytes().size()))});
}

/// The bytes between the optional arguments start and end, in characters.
TextSpan window(const Call& c, const Bound& bound) {
  const auto size = static_cast<int64_t>(character_count(c.bytes()));
  const auto clip = [&](size_t i, int64_t fallback) {
    int64_t at = bound.given(i) ? bound.integer(i, 0) : fallback;
    if (at < 0) at = std::max<int64_t>(at + size, 0);
    return character_offset(c.bytes(), static_cast<size_t>(std::min(at, size)));
  };
  const size_t begin = clip(1, 0);
  return {begin, std::max(begin, clip(2, size))};
}

Value starts_or_ends(const Call& c) {
  const Bound bound(c.run, c.name, c.args, {"prefix", "start", "end"}, 1);
  if (!bound.ok()) return {};
  const TextSpan span = window(c, bound);
  const auto part = std::string_view(c.bytes()).substr(span.begin, span.end - span.begin);
  const auto matches = [&](const Value& wanted) {
    const std::string& text = c.run.need_text(wanted, c.name).str();
    return c.name == "startswith" ? part.starts_with(text) : part.ends_with(text);
  };
  const Sequence* several = bound[0].sequence();
  if (several == nullptr || several->form != Sequence::Form::kTuple)
    return Value(matches(bound[0]));
  return Value(std::any_of(several->items.begin(), several->items.end(), matches));
}

Value find(const Call& c) {
  const Bound bound(c.run, c.name, c.args, {"sub", "start", "end"}, 1);
  const std::string& wanted = bound.text(0).str();
  if (!bound.ok()) return {};
  const TextSpan span = window(c, bound);
  const auto part = std::string_view(c.bytes()).substr(span.begin, span.end - span.begin);
  const bool last = c.name[0] == 'r';
  const size_t at = last ? part.rfind(wanted) : part.find(wanted);
  if (at == std::string_view::npos) {
    const bool must = c.name == "index" || c.name == "rindex";
    return must ? c.run.fail("index: the text does not occur") : Value(int64_t{-1});
  }
  return Value(static_cast<int64_t>(
      character_count(std::string_view(c.bytes()).substr(0, span.begin + at))));
}

Value count(const Call& c) {
  const Bound bound(c.run, c.name, c.args, {"sub", "start", "end"}, 1);
  const std::string& wanted = bound.text(0).str();
  if (!bound.ok()) return {};
  const TextSpan span = window(c, bound);
  const auto part = std::string_view(c.bytes()).substr(span.begin, span.end - span.begin);
  if (wanted.empty()) return Value(static_cast<int64_t>(character_count(part) + 1));
  int64_t found = 0;
  for (size_t at = part.find(wanted); at != std::string_view::npos;
       at = part.find(wanted, at + wanted.size())) {
    ++found;
  }
  return Value(found);
}

Value replace(const Call& c) {
  const Bound bound(c.run, c.name, c.args, {"old", "new", "count"}, 2);
  const Text &from = bound.text(0), &to = bound.text(1);
  const int64_t limit = bound.integer(2, -1);
  if (!c.run.ok()) return {};
  return c.run.string(replaced(c.run, c.self, from, to, limit));
}

Value join_method(const Call& c) {
  const Bound bound(c.run, c.name, c.args, {"iterable"}, 1);
  if (!bound.ok()) return {};
  const std::vector<Value> items = c.run.items(bound[0], "join");
  for (const Value& item : items) c.run.need_text(item, "join");
  return join(c.run, c.self, items);
}

Value remove_affix(const Call& c) {
  const Bound bound(c.run, c.name, c.args, {"affix"}, 1);
  const std::string& affix = bound.text(0).str();
  const std::string_view bytes = c.bytes();
  if (c.name == "removeprefix") {
    const size_t begin = bytes.starts_with(affix) ? affix.size() : 0;
    return c.run.string(c.self.slice(begin, bytes.size()));
  }
  const bool ends = !affix.empty() && bytes.ends_with(affix);
  return c.run.string(c.self.slice(0, bytes.size() - (ends ? affix.size() : 0)));
}

Value pad(const Call& c) {
  const Bound bound(c.run, c.name, c.args, {"width", "fillchar"}, 1);
  const int64_t width = bound.integer(0, 0);
  const std::string fill = bound.has(1) ? bound.text(1).str() : " ";
  if (!c.run.ok()) return {};
  if (character_count(fill) != 1) return c.run.fail("the fill character is not one character");
  if (c.name == "center") return c.run.string(centered(c.run, c.self, width, fill));
  const int64_t missing = width - static_cast<int64_t>(character_count(c.bytes()));
  if (missing > static_cast<int64_t>(kMaxTextBytes)) {
    return c.run.fail("the padded string is too long", Code::kResourceExhausted);
  }
  Text out;
  if (c.name == "ljust") out.append(c.self);
  for (int64_t i = 0; i < missing; ++i) out.append(fill);
  if (c.name == "rjust") out.append(c.self);
  return c.run.string(std::move(out));
}

Value zero_fill(const Call& c) {
  const Bound bound(c.run, c.name, c.args, {"width"}, 1);
  const int64_t missing = bound.integer(0, 0) - static_cast<int64_t>(character_count(c.bytes()));
  if (missing > static_cast<int64_t>(kMaxTextBytes)) {
    return c.run.fail("the padded string is too long", Code::kResourceExhausted);
  }
  const bool is_signed = !c.self.empty() && (c.bytes()[0] == '-' || c.bytes()[0] == '+');
  Text out = c.self.slice(0, is_signed ? 1 : 0);
  for (int64_t i = 0; i < missing; ++i) out.append("0");
  out.append(c.self, is_signed ? 1 : 0, c.self.size());
  return c.run.string(std::move(out));
}

Value expand_tabs(const Call& c) {
  const Bound bound(c.run, c.name, c.args, {"tabsize"});
  const int64_t size = bound.integer(0, 8);
  if (size > 1000) return c.run.fail("expandtabs: more than 1000 columns");
  Text out;
  int64_t column = 0;
  for (size_t at = 0; at < c.bytes().size();) {
    const size_t length = char_length(c.bytes()[at]);
    const char letter = c.bytes()[at];
    if (letter == '\t') {
      const int64_t blanks = size > 0 ? size - column % size : 0;
      out.append_as(std::string(static_cast<size_t>(blanks), ' '), c.self, at, at + 1);
      column += blanks;
      if (!c.run.allocate(static_cast<size_t>(blanks))) return {};
    } else {
      out.append(c.self, at, at + length);
      column = letter == '\n' || letter == '\r' ? 0 : column + 1;
    }
    at += length;
  }
  return c.run.string(std::move(out));
}

bool is_title_cased(std::string_view bytes) {
  bool in_word = false, any = false;
  for (size_t at = 0; at < bytes.size();) {
    const auto [letter, length] = decode_char(bytes, at);
    const bool capital = is_upper(letter) || is_title(letter), small = is_lower(letter);
    if ((capital && in_word) || (small && !in_word)) return false;
    in_word = capital || small;
    any = any || in_word;
    at += length;
  }
  return any;
}

Value character_test(const Call& c) {
  nothing(c);
  if (c.name == "isupper" || c.name == "islower") {
    return Value(has_case(c.self, c.name == "isupper"));
  }
  if (c.name == "istitle") return Value(is_title_cased(c.bytes()));
  const auto fits = [&](uint32_t letter) {
    if (c.name == "isspace") return is_space(letter);
    if (c.name == "isalpha") return is_alpha(letter);
    if (c.name == "isascii") return letter < 0x80;
    if (c.name == "isprintable") return is_printable(letter);
    if (c.name == "isdecimal" || c.name == "isdigit") return is_decimal(letter);
    if (c.name == "isnumeric") return tokenizer::is_numeric(letter);
    return is_alpha(letter) || tokenizer::is_numeric(letter);  // isalnum
  };
  for (size_t at = 0; at < c.bytes().size();) {
    const auto [letter, length] = decode_char(c.bytes(), at);
    if (!fits(letter)) return Value(false);
    at += length;
  }
  return Value(!c.self.empty() || c.name == "isascii" || c.name == "isprintable");
}

Value format_method(const Call& c) { return brace_format(c.run, c.self, c.args); }

struct Method {
  std::string_view name;
  Value (*call)(const Call&);
};
constexpr std::array<Method, 42> kMethods = {{{"capitalize", change_case},
                                              {"casefold", change_case},
                                              {"center", pad},
                                              {"count", count},
                                              {"endswith", starts_or_ends},
                                              {"expandtabs", expand_tabs},
                                              {"find", find},
                                              {"format", format_method},
                                              {"index", find},
                                              {"isalnum", character_test},
                                              {"isalpha", character_test},
                                              {"isascii", character_test},
                                              {"isdecimal", character_test},
                                              {"isdigit", character_test},
                                              {"islower", character_test},
                                              {"isnumeric", character_test},
                                              {"isprintable", character_test},
                                              {"isspace", character_test},
                                              {"istitle", character_test},
                                              {"isupper", character_test},
                                              {"join", join_method},
                                              {"ljust", pad},
                                              {"lower", change_case},
                                              {"lstrip", strip},
                                              {"partition", partition},
                                              {"removeprefix", remove_affix},
                                              {"removesuffix", remove_affix},
                                              {"replace", replace},
                                              {"rfind", find},
                                              {"rindex", find},
                                              {"rjust", pad},
                                              {"rpartition", partition},
                                              {"rsplit", split},
                                              {"rstrip", strip},
                                              {"split", split},
                                              {"splitlines", lines},
                                              {"startswith", starts_or_ends},
                                              {"strip", strip},
                                              {"swapcase", change_case},
                                              {"title", change_case},
                                              {"upper", change_case},
                                              {"zfill", zero_fill}}};

const Method* find_method(std::string_view name) {
  const auto it = std::find_if(kMethods.begin(), kMethods.end(),
                               [&](const Method& m) { return m.name == name; });
  return it == kMethods.end() ? nullptr : &*it;
}

}  // namespace

bool has_string_method(std::string_view name) { return find_method(name) != nullptr; }

Value call_string_method(Runtime& run, const Text& self, std::string_view name,
                         const CallArgs& args) {
  if (!run.step(weight_of_bytes(self.size()))) return {};
  return find_method(name)->call({run, self, name, args});
}

Value join(Runtime& run, const Text& separator, const std::vector<Value>& items) {
  Text out;
  for (size_t i = 0; i < items.size() && run.ok(); ++i) {
    if (i > 0) out.append(separator);
    out.append(run.text(items[i]));
    if (out.size() > kMaxTextBytes) break;  // string() tells
  }
  return run.string(std::move(out));
}

Text replaced(Runtime& run, const Text& text, const Text& from, const Text& to, int64_t limit) {
  Text out;
  const std::string& bytes = text.str();
  size_t at = 0;
  while (limit != 0 && out.size() <= kMaxTextBytes && run.ok()) {
    const size_t found = bytes.find(from.str(), at);
    if (found == std::string::npos) break;
    out.append(text, at, found);
    out.append(to);
    at = found + from.size();
    if (from.empty()) {  // between all characters, and at both ends
      if (at == bytes.size()) return out;
      const size_t length = char_length(bytes[at]);
      out.append(text, at, at + length);
      at += length;
    }
    if (limit > 0) --limit;
  }
  out.append(text, at, bytes.size());
  return out;
}

std::vector<Text> split_lines(Runtime& run, const Text& text, bool keep_ends) {
  std::vector<Text> out;
  const std::string& bytes = text.str();
  size_t begin = 0;
  for (size_t at = 0; at < bytes.size();) {
    const auto [letter, length] = decode_char(bytes, at);
    size_t end = at + length;
    if (letter == '\r' && end < bytes.size() && bytes[end] == '\n') ++end;
    if (is_line_end(letter)) {
      if (!run.allocate(sizeof(Text))) return out;
      out.push_back(text.slice(begin, keep_ends ? end : at));
      begin = end;
    }
    at = end;
  }
  if (begin < bytes.size()) out.push_back(text.slice(begin, bytes.size()));
  return out;
}

Text centered(Runtime& run, const Text& text, int64_t width, std::string_view fill) {
  const auto size = static_cast<int64_t>(character_count(text.str()));
  const int64_t missing = std::max<int64_t>(width - size, 0);
  if (missing > static_cast<int64_t>(kMaxTextBytes)) {
    run.fail("the padded string is too long", Code::kResourceExhausted);
    return {};
  }
  // Python puts the odd blank on the left when the width is odd.
  const int64_t left = missing / 2 + (missing & width & 1);
  Text out;
  for (int64_t i = 0; i < left; ++i) out.append(fill);
  out.append(text);
  for (int64_t i = left; i < missing; ++i) out.append(fill);
  return out;
}

bool has_case(const Text& text, bool upper) {
  bool any = false;
  for (size_t at = 0; at < text.size();) {
    const auto [letter, length] = decode_char(text.str(), at);
    if (is_title(letter) || (upper ? is_lower(letter) : is_upper(letter))) return false;
    any = any || is_upper(letter) || is_lower(letter);
    at += length;
  }
  return any;
}

}  // namespace chimera::jinja
