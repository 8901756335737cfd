// Values as text: str and repr.
#include <fmt/format.h>

#include "text/template/value/value.h"

namespace chimera::jinja {
namespace {

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
  const bool view = sequence.form != Form::kList;  // of a dict
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

}  // namespace

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
