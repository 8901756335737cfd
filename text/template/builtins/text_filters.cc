// Filters of strings and numbers.
#include <fmt/format.h>

#include <algorithm>
#include <array>
#include <charconv>
#include <cmath>
#include <cstdlib>

#include "text/template/builtins/filters.h"
#include "text/template/builtins/format.h"
#include "text/template/builtins/json.h"
#include "text/template/builtins/methods.h"
#include "text/template/builtins/operators.h"
#include "text/template/value/big_integer.h"
#include "text/unicode.h"

namespace chimera::jinja {
namespace {

Value upper(Runtime& run, const Value& subject, const CallArgs&) {
  return run.string(with_case(run.text(subject), Case::kUpper));
}

Value lower(Runtime& run, const Value& subject, const CallArgs&) {
  return run.string(with_case(run.text(subject), Case::kLower));
}

Value capitalize(Runtime& run, const Value& subject, const CallArgs&) {
  return run.string(with_case(run.text(subject), Case::kCapitalize));
}

/// Unlike str.title, words begin only after blanks, hyphens and opening brackets.
Value title(Runtime& run, const Value& subject, const CallArgs&) {
  const Text text = run.text(subject);
  const std::string& bytes = text.str();
  Text out;
  size_t begin = 0;
  const auto add_word = [&](size_t end) {
    if (begin < end) out.append(with_case(text.slice(begin, end), Case::kCapitalize));
  };
  for (size_t at = 0; at < bytes.size();) {
    const auto [letter, length] = decode_char(bytes, at);
    const bool separates = is_space(letter) || letter == '-' || letter == '(' || letter == '{' ||
                           letter == '[' || letter == '<';
    if (separates) {
      add_word(at);
      out.append(text, at, at + length);
      begin = at + length;
    }
    at += length;
  }
  add_word(bytes.size());
  return run.string(std::move(out));
}

Value trim(Runtime& run, const Value& subject, const CallArgs& args) {
  const Bound bound(run, "trim", args, {"chars"});
  const Text text = run.text(subject);
  const TextSpan kept = bound.given(0) ? stripped_of(text.str(), bound.text(0).str(), true, true)
                                       : stripped(text.str(), true, true);
  return run.string(text.slice(kept.begin, kept.end));
}

Value replace(Runtime& run, const Value& subject, const CallArgs& args) {
  const Bound bound(run, "replace", args, {"old", "new", "count"}, 2);
  const int64_t limit = bound.given(2) ? bound.integer(2, -1) : -1;
  if (!bound.ok()) return {};
  const Text from = run.text(bound[0]), to = run.text(bound[1]);
  return run.string(replaced(run, run.text(subject), from, to, limit));
}

Value center(Runtime& run, const Value& subject, const CallArgs& args) {
  const Bound bound(run, "center", args, {"width"});
  return run.string(centered(run, run.text(subject), bound.integer(0, 80), " "));
}

Value string(Runtime& run, const Value& subject, const CallArgs&) {
  return run.string(run.text(subject));
}

Value format(Runtime& run, const Value& subject, const CallArgs& args) {
  if (!args.positional.empty() && !args.named.empty()) {
    return run.fail("format: positional and named arguments together");
  }
  Value arguments;
  if (args.named.empty()) {
    arguments = run.tuple(args.positional);
  } else {
    auto dict = std::make_shared<Dict>();
    for (const auto& [name, value] : args.named) run.set(*dict, Value::string(name), value);
    arguments = run.dict(std::move(dict));
  }
  return run.ok() ? percent_format(run, run.text(subject), arguments) : Value();
}

Value escape(Runtime& run, const Value& subject, const CallArgs&) {
  const Text* held = subject.text();
  Text out = held != nullptr && held->markup ? *held : escaped(run.text(subject));
  out.markup = true;
  return run.string(std::move(out));
}

Value force_escape(Runtime& run, const Value& subject, const CallArgs&) {
  Text out = escaped(run.text(subject));
  out.markup = true;
  return run.string(std::move(out));
}

Value safe(Runtime& run, const Value& subject, const CallArgs&) {
  Text out = run.text(subject);
  out.markup = true;
  return run.string(std::move(out));
}

Value indent(Runtime& run, const Value& subject, const CallArgs& args) {
  const Bound bound(run, "indent", args, {"width", "first", "blank"});
  Text margin;
  if (bound.has(0) && bound[0].text() != nullptr) {
    margin = *bound[0].text();
  } else {
    const int64_t width = bound.integer(0, 4);
    if (width > 10'000) return run.fail("indent: more than 10000 columns");
    margin.append(std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' '));
  }
  const bool first = bound.flag(1, false), blank = bound.flag(2, false);
  Text text = run.need_text(subject, "indent");
  text.append("\n");  // so that a last empty line counts
  const std::vector<Text> lines = split_lines(run, text, /*keep_ends=*/false);
  Text out;
  for (size_t i = 0; i < lines.size() && out.size() <= kMaxTextBytes; ++i) {
    if (i > 0) out.append("\n");
    if (i == 0 ? first : (blank || !lines[i].empty())) out.append(margin);
    out.append(lines[i]);
  }
  return run.string(std::move(out));
}

Value truncate(Runtime& run, const Value& subject, const CallArgs& args) {
  const Bound bound(run, "truncate", args, {"length", "killwords", "end", "leeway"});
  const int64_t wanted = bound.integer(0, 255);
  Text end;
  bound.has(2) ? end.append(bound.text(2)) : end.append("...");
  const int64_t leeway = bound.given(3) ? bound.integer(3, 5) : 5;
  const Text& text = run.need_text(subject, "truncate");
  const auto end_size = static_cast<int64_t>(character_count(end.str()));
  if (!run.ok()) return {};
  if (wanted < end_size || leeway < 0) return run.fail("truncate: the length is too small");
  if (wanted < INT64_MAX - leeway &&
      static_cast<int64_t>(character_count(text.str())) <= wanted + leeway) {
    return subject;
  }
  size_t cut = character_offset(text.str(), static_cast<size_t>(wanted - end_size));
  if (!bound.flag(1, false)) {
    const size_t blank = text.str().substr(0, cut).rfind(' ');
    if (blank != std::string::npos) cut = blank;
  }
  Text out = text.slice(0, cut);
  out.append(end);
  return run.string(std::move(out));
}

Value word_count(Runtime& run, const Value& subject, const CallArgs&) {
  const Text text = run.text(subject);
  int64_t count = 0;
  bool in_word = false;
  for (size_t at = 0; at < text.size();) {
    const auto [letter, length] = decode_char(text.str(), at);
    const bool word = tokenizer::is_word(letter);
    count += word && !in_word ? 1 : 0;
    in_word = word;
    at += length;
  }
  return Value(count);
}

Value abs(Runtime& run, const Value& subject, const CallArgs&) {
  if (const auto integer = subject.integer()) {
    // Through the digits, because the smallest integer has no opposite of 64 bits.
    return *integer < 0 ? integer_of(std::to_string(*integer).substr(1)) : Value(*integer);
  }
  if (const double* real = subject.real()) return Value(std::abs(*real));
  if (const BigInteger* big = subject.big()) {
    return big->negative() ? Value(BigInteger{big->digits.substr(1)}) : subject;
  }
  return run.mismatch("abs", subject, "a number");
}

Value round(Runtime& run, const Value& subject, const CallArgs& args) {
  const Bound bound(run, "round", args, {"precision", "method"});
  const int64_t precision = bound.integer(0, 0);
  const std::string method = bound.has(1) ? bound.text(1).str() : "common";
  if (!subject.is_number()) return run.mismatch("round", subject, "a number");
  const bool whole = subject.real() == nullptr;
  if (method == "common") {
    if (!whole) return Value(rounded(*subject.real(), precision));
    if (precision >= 0) return subject.boolean() != nullptr ? Value(*subject.integer()) : subject;
    const auto multiple = rounded_to_zeros(subject, -static_cast<uint64_t>(precision));
    return multiple ? *multiple : run.fail("round: the integer is too large");
  }
  if (method != "ceil" && method != "floor") {
    return run.fail("round: unknown method (expected common, ceil or floor)");
  }
  if (precision < -300 || precision > 300) return run.fail("round: precision beyond 300 digits");
  const double power = std::pow(10.0, static_cast<double>(precision));
  const auto number = whole ? nearest_float(subject) : subject.number();
  if (!number) return run.fail("round: the integer is too large for a float");
  if (whole && precision >= 0) return Value(*number);
  const double scaled = *number * power;
  return Value((method == "ceil" ? std::ceil(scaled) : std::floor(scaled)) / power);
}

/// The text without blanks around and single underscores between digits; "" when it is no number.
std::string number_text(const Text& text) {
  const TextSpan kept = stripped(text.str(), true, true);
  std::string out;
  for (size_t at = kept.begin; at < kept.end; ++at) {
    const char c = text.str()[at];
    if (c != '_') {
      out += c;
      continue;
    }
    const auto digit = [&](size_t i) {
      return i < kept.end && std::isxdigit(static_cast<unsigned char>(text.str()[i])) != 0;
    };
    if (at == kept.begin || !digit(at - 1) || !digit(at + 1)) return {};
  }
  return out;
}

std::optional<double> parse_real(const Text& text) {
  std::string digits = number_text(text);
  std::transform(digits.begin(), digits.end(), digits.begin(),
                 [](unsigned char c) { return static_cast<char>(std::tolower(c)); });
  const bool hexadecimal = digits.find('x') != std::string::npos;
  if (digits.empty() || hexadecimal || digits.find('(') != std::string::npos) return std::nullopt;
  char* end = nullptr;
  const double value = std::strtod(digits.c_str(), &end);
  return end == digits.c_str() + digits.size() ? std::optional(value) : std::nullopt;
}

std::optional<Value> parse_integer(const Text& text, int64_t base) {
  const std::string digits = number_text(text);
  std::string_view rest = digits;
  const bool negative = rest.starts_with('-');
  if (negative || rest.starts_with('+')) rest.remove_prefix(1);
  const std::string_view prefix = base == 16 ? "0x" : (base == 8 ? "0o" : (base == 2 ? "0b" : ""));
  if (!prefix.empty() && rest.size() > 2 && rest[0] == '0' && (rest[1] | 0x20) == prefix[1]) {
    rest.remove_prefix(2);
  }
  int64_t value = 0;
  const auto parsed =
      std::from_chars(rest.data(), rest.data() + rest.size(), value, static_cast<int>(base));
  const bool whole = !rest.empty() && rest[0] != '-' && parsed.ec != std::errc::invalid_argument &&
                     parsed.ptr == rest.data() + rest.size();
  if (!whole) return std::nullopt;
  if (parsed.ec == std::errc()) return Value(negative ? -value : value);
  if (base != 10) return std::nullopt;  // beyond 64 bits
  return integer_of((negative ? "-" : "") + std::string(rest));
}

Value to_integer(Runtime& run, const Value& subject, const CallArgs& args) {
  const Bound bound(run, "int", args, {"default", "base"});
  const Value fallback = bound.has(0) ? bound[0] : Value(int64_t{0});
  const int64_t base = bound.integer(1, 10);
  if (base < 2 || base > 36) return run.fail("int: the base is not between 2 and 36");
  if (subject.is_undefined()) return run.mismatch("int", subject, "");
  if (const auto integer = subject.integer()) return Value(*integer);
  if (subject.big() != nullptr) return subject;
  std::optional<double> real;
  if (const Text* text = subject.text()) {
    if (const auto parsed = parse_integer(*text, base)) return *parsed;
    real = parse_real(*text);
  } else {
    real = subject.number();
  }
  const auto whole = real ? whole_part(*real) : std::nullopt;
  return whole ? *whole : fallback;
}

Value to_real(Runtime& run, const Value& subject, const CallArgs& args) {
  const Bound bound(run, "float", args, {"default"});
  if (subject.is_undefined()) return run.mismatch("float", subject, "");
  if (subject.is_number()) {
    const auto nearest = subject.real() != nullptr ? subject.number() : nearest_float(subject);
    return nearest ? Value(*nearest) : run.fail("float: the integer is too large");
  }
  const auto parsed = subject.text() != nullptr ? parse_real(*subject.text()) : std::nullopt;
  if (parsed) return Value(*parsed);
  return bound.has(0) ? bound[0] : Value(0.0);
}

Value fallback(Runtime& run, const Value& subject, const CallArgs& args) {
  const Bound bound(run, "default", args, {"default_value", "boolean"});
  const bool replace_it = subject.is_undefined() || (bound.flag(1, false) && !truth(subject));
  if (!replace_it) return subject;
  return bound.has(0) ? bound[0] : run.string(Text());
}

Value attr(Runtime& run, const Value& subject, const CallArgs& args) {
  const Bound bound(run, "attr", args, {"name"}, 1);
  const std::string name = bound.text(0).str();
  // Unlike the dot, it does not look into dicts.
  if (subject.dict() != nullptr && !has_method(subject, name)) {
    return Value::undefined(fmt::format("'dict object' has no attribute '{}'", name));
  }
  return run.ok() ? attribute(run, subject, name) : Value();
}

Value to_json(Runtime& run, const Value& subject, const CallArgs& args) {
  const Bound bound(run, "tojson", args, {"ensure_ascii", "indent", "separators", "sort_keys"});
  JsonStyle style;
  style.ascii = bound.flag(0, false);
  style.sorted = bound.flag(3, false);
  if (bound.given(1)) {
    style.item_separator.assign(1, ',');
    if (bound[1].text() != nullptr) {
      style.indent = bound[1].text()->str();
    } else {
      const int64_t width = bound.integer(1, 0);
      if (width > 100) return run.fail("tojson: an indent of more than 100 columns");
      style.indent = std::string(static_cast<size_t>(std::max<int64_t>(width, 0)), ' ');
    }
  }
  if (bound.given(2)) {
    const Sequence* pair = bound[2].indexed();
    if (pair == nullptr || pair->items.size() != 2) {
      return run.mismatch("tojson separators", bound[2], "a pair of strings");
    }
    style.item_separator = run.need_text(pair->items[0], "tojson separators").str();
    style.key_separator = run.need_text(pair->items[1], "tojson separators").str();
  }
  return run.ok() ? run.string(dump_json(run, subject, style)) : Value();
}

constexpr std::array<FilterEntry, 24> kFilters = {{{"abs", abs},
                                                   {"attr", attr},
                                                   {"capitalize", capitalize},
                                                   {"center", center},
                                                   {"d", fallback},
                                                   {"default", fallback},
                                                   {"e", escape},
                                                   {"escape", escape},
                                                   {"float", to_real},
                                                   {"forceescape", force_escape},
                                                   {"format", format},
                                                   {"indent", indent},
                                                   {"int", to_integer},
                                                   {"lower", lower},
                                                   {"replace", replace},
                                                   {"round", round},
                                                   {"safe", safe},
                                                   {"string", string},
                                                   {"title", title},
                                                   {"tojson", to_json},
                                                   {"trim", trim},
                                                   {"truncate", truncate},
                                                   {"upper", upper},
                                                   {"wordcount", word_count}}};

}  // namespace

const FilterEntry* find_text_filter(std::string_view name) {
  const auto it = std::find_if(kFilters.begin(), kFilters.end(),
                               [&](const FilterEntry& entry) { return entry.name == name; });
  return it == kFilters.end() ? nullptr : &*it;
}

}  // namespace chimera::jinja
