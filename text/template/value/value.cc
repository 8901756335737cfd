#include "text/template/value/value.h"

#include <fmt/format.h>

#include <algorithm>
#include <charconv>
#include <cmath>

namespace chimera::jinja {
namespace {

constexpr double kInt64Limit = 9223372036854775808.0;  // 2^63, exact

/// Exact comparison of an integer with a float: -1, 0, 1; nullopt for NaN.
std::optional<int> compare_exact(int64_t a, double b) {
  if (std::isnan(b)) return std::nullopt;
  if (b >= kInt64Limit) return -1;
  if (b < -kInt64Limit) return 1;
  const double whole = std::floor(b);
  const auto integer = static_cast<int64_t>(whole);
  if (a != integer) return a < integer ? -1 : 1;
  return b > whole ? -1 : 0;
}

/// The digits of a number that is whole; nullopt for others and for floats of the 64-bit range.
std::optional<std::string> big_digits(const Value& value) {
  if (const BigInteger* big = value.big()) return big->digits;
  if (const auto integer = value.integer()) return std::to_string(*integer);
  const double* real = value.real();
  if (real == nullptr || !std::isfinite(*real) || std::abs(*real) < kInt64Limit) {
    return std::nullopt;
  }
  return fmt::format("{:.0f}", *real);  // every float of this size is whole, and printed exactly
}

/// Where one of two numbers is big, it is farther from 0 than whatever 64 bits hold.
std::optional<int> compare_big(const Value& a, const Value& b) {
  const double* ra = a.real();
  const double* rb = b.real();
  if ((ra != nullptr && std::isnan(*ra)) || (rb != nullptr && std::isnan(*rb))) return std::nullopt;
  if (ra != nullptr && std::isinf(*ra)) return *ra < 0 ? -1 : 1;
  if (rb != nullptr && std::isinf(*rb)) return *rb < 0 ? 1 : -1;
  const auto da = big_digits(a), db = big_digits(b);
  if (!db) return a.big()->negative() ? -1 : 1;
  if (!da) return b.big()->negative() ? 1 : -1;
  const bool negative = da->front() == '-';
  if (negative != (db->front() == '-')) return negative ? -1 : 1;
  const int longer =
      da->size() == db->size() ? da->compare(*db) : (da->size() < db->size() ? -1 : 1);
  const int sign = longer == 0 ? 0 : (longer < 0 ? -1 : 1);
  return negative ? -sign : sign;
}

std::optional<int> compare_numbers(const Value& a, const Value& b) {
  if (a.big() != nullptr || b.big() != nullptr) return compare_big(a, b);
  const auto ia = a.integer(), ib = b.integer();
  if (ia && ib) return *ia < *ib ? -1 : (*ia > *ib ? 1 : 0);
  if (ia) return compare_exact(*ia, *b.real());
  if (ib) {
    const auto turned = compare_exact(*ib, *a.real());
    return turned ? std::optional(-*turned) : std::nullopt;
  }
  const double x = *a.real(), y = *b.real();
  if (std::isnan(x) || std::isnan(y)) return std::nullopt;
  return x < y ? -1 : (x > y ? 1 : 0);
}

bool is_view(Sequence::Form form) {
  return form == Sequence::Form::kKeys || form == Sequence::Form::kValues ||
         form == Sequence::Form::kItems;
}

bool equal_sequences(const Sequence& a, const Sequence& b) {
  if (a.form != b.form) return false;
  if (&a == &b) return true;
  if (a.form == Sequence::Form::kIterator || a.form == Sequence::Form::kValues) return false;
  return a.items.size() == b.items.size() &&
         std::equal(a.items.begin(), a.items.end(), b.items.begin(), equal);
}

bool equal_dicts(const Dict& a, const Dict& b) {
  if (a.items.size() != b.items.size()) return false;
  return std::all_of(a.items.begin(), a.items.end(), [&](const auto& entry) {
    const Value* other = b.find(entry.first);
    return other != nullptr && equal(entry.second, *other);
  });
}

/// Appends `c` as repr writes it inside quotes.
void append_escaped(uint32_t c, char quote, std::string_view bytes, std::string& out) {
  if (c == static_cast<uint32_t>(quote) || c == '\\') {
    out += '\\';
    out += static_cast<char>(c);
  } else if (c == '\n') {
    out += "\\n";
  } else if (c == '\r') {
    out += "\\r";
  } else if (c == '\t') {
    out += "\\t";
  } else if (is_printable(c)) {
    out += bytes;
  } else if (c < 0x100) {
    out += fmt::format("\\x{:02x}", c);
  } else {
    out += c < 0x10000 ? fmt::format("\\u{:04x}", c) : fmt::format("\\U{:08x}", c);
  }
}

void append_string_repr(const Text& text, Text& out) {
  const std::string& bytes = text.str();
  const bool single = bytes.find('\'') != std::string::npos;
  const bool twice = bytes.find('"') != std::string::npos;
  const char quote = single && !twice ? '"' : '\'';
  const std::string edge(1, quote);
  out.append(edge);
  for (size_t at = 0; at < bytes.size();) {
    const size_t length = character_offset(std::string_view(bytes).substr(at, 4), 1);
    const std::string_view one = std::string_view(bytes).substr(at, length);
    uint32_t c = static_cast<uint8_t>(one[0]);
    if (length > 1) {
      c &= 0x7Fu >> length;
      for (const char next : one.substr(1)) c = (c << 6) | (static_cast<uint8_t>(next) & 0x3Fu);
    }
    std::string escaped;
    append_escaped(c, quote, one, escaped);
    out.append_as(escaped, text, at, at + length);
    at += length;
  }
  out.append(edge);
}

void append_repr(const Value& value, int depth, Text& out);

void append_items(const std::vector<Value>& items, size_t from, int depth, Text& out) {
  for (size_t i = from; i < items.size(); ++i) {
    if (i > from) out.append(", ");
    append_repr(items[i], depth, out);
  }
}

void append_sequence(const Sequence& sequence, int depth, Text& out) {
  using Form = Sequence::Form;
  switch (sequence.form) {
    case Form::kRange:
      out.append(sequence.step == 1 ? fmt::format("range({}, {})", sequence.start, sequence.stop)
                                    : fmt::format("range({}, {}, {})", sequence.start,
                                                  sequence.stop, sequence.step));
      return;
    case Form::kIterator:
      return out.append("<generator object>");
    case Form::kTuple:
      out.append("(");
      append_items(sequence.items, 0, depth, out);
      return out.append(sequence.items.size() == 1 ? ",)" : ")");
    default:
      break;
  }
  const bool view = is_view(sequence.form);
  if (view) {
    out.append(sequence.form == Form::kKeys     ? "dict_keys("
               : sequence.form == Form::kValues ? "dict_values("
                                                : "dict_items(");
  }
  out.append("[");
  append_items(sequence.items, 0, depth, out);
  out.append(view ? "])" : "]");
}

void append_dict(const Dict& dict, int depth, Text& out) {
  out.append("{");
  bool first = true;
  for (const auto& [key, value] : dict.items) {
    if (!first) out.append(", ");
    first = false;
    append_repr(key, depth, out);
    out.append(": ");
    append_repr(value, depth, out);
  }
  out.append("}");
}

void append_namespace(const Namespace& space, int depth, Text& out) {
  out.append("<Namespace {");
  bool first = true;
  for (const auto& [name, value] : space.attributes) {
    if (!first) out.append(", ");
    first = false;
    append_string_repr(Text(name), out);
    out.append(": ");
    append_repr(value, depth, out);
  }
  out.append("}>");
}

std::string function_text(const Function& function) {
  switch (function.type) {
    case Function::Type::kMacro:
      return fmt::format("<Macro '{}'>", function.name);
    case Function::Type::kMethod:
      return fmt::format("<built-in method {} of {} object>", function.name,
                         type_name(function.self));
    default:
      return fmt::format("<function {}>", function.name);
  }
}

void append_repr(const Value& value, int depth, Text& out) {
  // Namespaces can hold themselves; everything else is bounded by kMaxNesting and its weight.
  if (depth > kMaxNesting || out.size() > kMaxTextBytes) return out.append("...");
  if (value.is_undefined()) return out.append("Undefined");
  if (value.is_none()) return out.append("None");
  if (const bool* flag = value.boolean()) return out.append(*flag ? "True" : "False");
  if (const double* real = value.real()) return out.append(float_text(*real));
  if (const auto integer = value.integer()) return out.append(std::to_string(*integer));
  if (const BigInteger* big = value.big()) return out.append(big->digits);
  if (const Text* text = value.text()) {
    if (text->markup) out.append("Markup(");
    append_string_repr(*text, out);
    if (text->markup) out.append(")");
    return;
  }
  if (const Sequence* sequence = value.sequence()) {
    return append_sequence(*sequence, depth + 1, out);
  }
  if (const Dict* dict = value.dict()) return append_dict(*dict, depth + 1, out);
  if (const Function* function = value.function()) return out.append(function_text(*function));
  if (const Namespace* space = value.name_space()) {
    return append_namespace(*space, depth + 1, out);
  }
  if (const Loop* loop = value.loop()) {
    out.append(fmt::format("<LoopContext {}/{}>", loop->index + 1, loop->items.size()));
  }
}

std::optional<bool> less_sequences(const Sequence& a, const Sequence& b) {
  const bool ordered =
      a.form == b.form && (a.form == Sequence::Form::kList || a.form == Sequence::Form::kTuple);
  if (!ordered) return std::nullopt;
  const size_t common = std::min(a.items.size(), b.items.size());
  for (size_t i = 0; i < common; ++i) {
    if (!equal(a.items[i], b.items[i])) return less(a.items[i], b.items[i]);
  }
  return a.items.size() < b.items.size();
}

}  // namespace

Value Value::undefined(std::string problem) {
  Value out;
  out.data_ = Undefined{std::make_shared<const std::string>(std::move(problem))};
  return out;
}

std::optional<int64_t> Value::integer() const {
  if (const auto* held = std::get_if<int64_t>(&data_)) return *held;
  if (const auto* held = std::get_if<bool>(&data_)) return *held ? 1 : 0;
  return std::nullopt;
}

std::optional<double> Value::number() const {
  if (const double* held = real()) return *held;
  if (const auto held = integer()) return static_cast<double>(*held);
  return std::nullopt;
}

const Sequence* Value::indexed() const {
  const Sequence* held = sequence();
  if (held == nullptr || held->form == Sequence::Form::kIterator || is_view(held->form)) {
    return nullptr;
  }
  return held;
}

bool Dict::set(Value key, Value value) {
  auto hashed = hash_key(key);
  if (!hashed) return false;
  nesting = std::max({nesting, jinja::nesting(key) + 1, jinja::nesting(value) + 1});
  weight = saturating_add(weight, saturating_add(jinja::weight(key), jinja::weight(value)));
  const auto [at, is_new] = index_.try_emplace(std::move(*hashed), items.size());
  if (is_new) {
    items.emplace_back(std::move(key), std::move(value));
  } else {
    items[at->second].second = std::move(value);
  }
  return true;
}

const Value* Dict::find(const Value& key) const {
  const auto hashed = hash_key(key);
  if (!hashed) return nullptr;
  const auto at = index_.find(*hashed);
  return at == index_.end() ? nullptr : &items[at->second].second;
}

const Value* Dict::find(std::string_view key) const {
  const auto at = index_.find(std::string("s").append(key));
  return at == index_.end() ? nullptr : &items[at->second].second;
}

const Value* Namespace::find(std::string_view name) const {
  for (const auto& [key, value] : attributes) {
    if (key == name) return &value;
  }
  return nullptr;
}

void Namespace::set(std::string_view name, Value value) {
  for (auto& [key, held] : attributes) {
    if (key == name) {
      held = std::move(value);
      return;
    }
  }
  attributes.emplace_back(std::string(name), std::move(value));
}

Value integer_of(std::string_view digits) {
  int64_t value = 0;
  const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), value);
  if (parsed.ec == std::errc()) return Value(value);
  const std::string_view sign = digits.substr(0, digits.front() == '-' ? 1 : 0);
  digits.remove_prefix(std::min(digits.find_first_not_of("-0"), digits.size()));
  return Value(BigInteger{std::string(sign) + std::string(digits)});
}

std::optional<Value> whole_part(double value) {
  if (!std::isfinite(value)) return std::nullopt;
  if (std::abs(value) < kInt64Limit) return Value(static_cast<int64_t>(value));
  return integer_of(fmt::format("{:.0f}", value));
}

int nesting(const Value& value) {
  if (const Sequence* sequence = value.sequence()) return sequence->nesting;
  if (const Dict* dict = value.dict()) return dict->nesting;
  if (const Function* function = value.function()) return nesting(function->self) + 1;
  return 0;
}

size_t saturating_add(size_t a, size_t b) { return a > SIZE_MAX - b ? SIZE_MAX : a + b; }

size_t weight_of_bytes(size_t bytes) { return 1 + bytes / 32; }

size_t weight(const Value& value) {
  if (const Text* text = value.text()) return weight_of_bytes(text->size());
  if (const BigInteger* big = value.big()) return weight_of_bytes(big->digits.size());
  if (const Sequence* sequence = value.sequence()) return sequence->weight;
  if (const Dict* dict = value.dict()) return dict->weight;
  const Namespace* space = value.name_space();
  if (space == nullptr) return 1;
  return saturating_add(1, space->attributes.size());
}

std::shared_ptr<Sequence> make_sequence(Sequence::Form form, std::vector<Value> items) {
  auto out = std::make_shared<Sequence>();
  out->form = form;
  for (const Value& item : items) {
    out->nesting = std::max(out->nesting, nesting(item) + 1);
    out->weight = saturating_add(out->weight, weight(item));
  }
  out->items = std::move(items);
  return out;
}

bool truth(const Value& value) {
  if (value.is_undefined() || value.is_none()) return false;
  if (const double* real = value.real()) return *real != 0.0;
  if (const auto integer = value.integer()) return *integer != 0;
  if (const Text* text = value.text()) return !text->empty();
  if (const Dict* dict = value.dict()) return !dict->items.empty();
  if (const Sequence* sequence = value.sequence()) {
    return sequence->form == Sequence::Form::kIterator || !sequence->items.empty();
  }
  return true;
}

bool equal(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == 0;
  if (a.data().index() != b.data().index()) return false;
  if (a.is_undefined() || a.is_none()) return true;
  if (a.text() != nullptr) return a.text()->str() == b.text()->str();
  if (a.sequence() != nullptr) return equal_sequences(*a.sequence(), *b.sequence());
  if (a.dict() != nullptr) return equal_dicts(*a.dict(), *b.dict());
  if (a.function() != nullptr) return a.function() == b.function();
  return a.name_space() == b.name_space() && a.loop() == b.loop();
}

std::optional<bool> less(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) return compare_numbers(a, b) == -1;
  // UTF-8 sorts by bytes as Python sorts by code points.
  if (a.text() != nullptr && b.text() != nullptr) return a.text()->str() < b.text()->str();
  if (a.sequence() != nullptr && b.sequence() != nullptr) {
    return less_sequences(*a.sequence(), *b.sequence());
  }
  return std::nullopt;
}

std::optional<std::string> hash_key(const Value& key) {
  if (const Text* text = key.text()) return "s" + text->str();
  if (key.is_none()) return "n";
  if (key.is_undefined()) return "u";
  if (const auto digits = big_digits(key)) return "i" + *digits;
  if (const double* real = key.real()) {
    const bool whole = std::floor(*real) == *real && std::isfinite(*real);
    return whole ? "i" + std::to_string(static_cast<int64_t>(*real)) : "f" + float_text(*real);
  }
  const Sequence* tuple = key.sequence();
  if (tuple == nullptr || tuple->form != Sequence::Form::kTuple) return std::nullopt;
  std::string out = "t";
  for (const Value& item : tuple->items) {
    const auto part = hash_key(item);
    if (!part) return std::nullopt;
    out += fmt::format("{}:{}", part->size(), *part);
  }
  return out;
}

std::string type_name(const Value& value) {
  static constexpr const char* kForms[] = {"list",        "tuple",      "range",    "dict_keys",
                                           "dict_values", "dict_items", "generator"};
  if (value.is_undefined()) return "Undefined";
  if (value.is_none()) return "NoneType";
  if (value.boolean() != nullptr) return "bool";
  if (value.real() != nullptr) return "float";
  if (value.integer() || value.big() != nullptr) return "int";
  if (value.text() != nullptr) return "str";
  if (value.dict() != nullptr) return "dict";
  if (const Sequence* sequence = value.sequence()) {
    return kForms[static_cast<size_t>(sequence->form)];
  }
  if (value.name_space() != nullptr) return "Namespace";
  if (value.loop() != nullptr) return "LoopContext";
  return "function";
}

std::string float_text(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  // Shortest digits that read back the same, then laid out as repr does: scientific below 1e-4
  // and from 1e16 on.
  char buffer[64];
  const auto end =
      std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::scientific);
  const std::string_view text(buffer, static_cast<size_t>(end.ptr - buffer));
  const size_t e = text.find('e');
  int exponent = 0;
  const size_t sign = text[e + 1] == '+' ? e + 2 : e + 1;
  std::from_chars(text.data() + sign, text.data() + text.size(), exponent);
  if (exponent < -4 || exponent >= 16) {
    return fmt::format("{}e{}{:02}", text.substr(0, e), exponent < 0 ? '-' : '+',
                       std::abs(exponent));
  }
  const auto fixed = std::to_chars(buffer, buffer + sizeof buffer, value, std::chars_format::fixed);
  std::string out(buffer, fixed.ptr);
  if (out.find('.') == std::string::npos) out += ".0";
  return out;
}

Text to_text(const Value& value) {
  if (const Text* text = value.text()) return *text;
  if (value.is_undefined()) return Text();
  return to_repr(value);
}

Text to_repr(const Value& value) {
  Text out;
  append_repr(value, 0, out);
  return out;
}

}  // namespace chimera::jinja
